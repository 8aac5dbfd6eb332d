"""Names of image copies and classes in a converted data set, such that every layout can be read again."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path

from PIL import Image

from ssdir.data.annotations import AnnotationTable
from ssdir.data.image_files import IMAGE_SUFFIXES, is_image_name
from ssdir.data.images import open_image
from ssdir.formatting import quote

# These are control characters, half surrogate pairs (bytes that are no UTF-8), ends of lines and paragraphs.
_UNWRITABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
# These are a byte order mark, and characters that XML excludes.
_NO_TEXT = frozenset("\ufeff\ufffe\uffff")
# Names have at most 255 bytes, some of which are for the split's name and the suffix.
_MAX_BYTES = 180


def copy_names(
    tables: Mapping[str, AnnotationTable], one_folder: bool, any_suffix: bool
) -> tuple[dict[str, list[str]], list[str]]:
    """Chooses the names of image copies: the original names if they can be written and are unique.

    Two names are one if they differ only in case, suffix, or how an accent is written, as their labels would be
    one file, at least on some systems.

    Args:
        tables: the images of each split.
        one_folder: whether the copies of all splits are in one folder.
        any_suffix: whether images are listed with their suffix, so that it may be any.

    Returns:
        By split, a name for each image; and all changes of a name, in words.
    """

    def key(split: str, name: str) -> tuple[str, str]:
        return "" if one_folder else split, _folded(Path(name).stem)

    plain = {
        split: [_plain_name(path, any_suffix) for path in table.image_paths] for split, table in tables.items()
    }
    shared = Counter(key(split, name) for split, names in plain.items() for name in names)
    used = {which for which, number in shared.items() if number == 1}

    def free_name(split: str, name: str, image: str) -> str:
        if shared[key(split, name)] == 1:
            return name
        stem, suffix = Path(name).stem, Path(name).suffix
        parts = [part for part in Path(image).parts if part != Path(image).anchor]
        whole = Path(plain_text("_".join(parts))).stem[-_MAX_BYTES // 4 :]
        stems = (f"{split}_{stem}", f"{split}_{whole}")
        candidates = chain(stems, (f"{stems[0]}_{n}" for n in count(2)))
        free = next(stem for stem in candidates if key(split, f"{stem}.x") not in used)
        used.add(key(split, f"{free}.x"))
        return free + suffix

    names: dict[str, list[str]] = {}
    changes = []
    for split, table in tables.items():
        names[split] = [
            free_name(split, name, image) for name, image in zip(plain[split], table.image_names, strict=True)
        ]
        changes += [
            f"{quote(image)} of {split} is {quote(name)}"
            for name, image in zip(names[split], table.image_names, strict=True)
            if name != Path(image).name
        ]
    return names, changes


def _plain_name(path: Path, any_suffix: bool) -> str:
    """Returns an image's name if it can be written in a list and read again, else a similar one."""
    stem, suffix = path.stem, path.suffix
    plain = _plain_stem(stem)
    if stem == plain and suffix == plain_text(suffix) and (any_suffix or is_image_name(path)):
        return path.name
    return f"{plain or 'image'}{copy_suffix(path)}"


def _plain_stem(text: str) -> str:
    """Returns text as the name of a file or folder, without a suffix; empty if nothing remains."""
    plain = plain_text(text).replace("/", "_").replace("\\", "_").lstrip(". ")
    return plain.encode()[:_MAX_BYTES].decode("utf-8", "ignore").rstrip()


def copy_suffix(path: Path) -> str:
    """Returns an image's suffix if images are known by it, else the usual one of the file's format."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path.suffix
    with open_image(path) as image:
        kind = image.format
    suffixes = (suffix for suffix, other in Image.registered_extensions().items() if other == kind)
    return next((suffix for suffix in suffixes if suffix in IMAGE_SUFFIXES), ".jpg")


def clip_folders(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Chooses a folder for each clip of a split; also returns the changes.

    It is the clip's name if that can be a folder's, and if no other is one with it, as in `copy_names`.
    """
    shared = Counter(map(_folded, names))
    taken, folders, changes = {*shared}, list[str](), list[str]()
    for name in names:
        folder = plain = _plain_stem(name) or "clip"
        if plain != name or shared[_folded(name)] > 1:
            candidates = chain([plain], (f"{plain}-{n}" for n in count(2)))
            folder = next(free for free in candidates if _folded(free) not in taken)
            taken.add(_folded(folder))
            changes.append(f"{quote(name)} is {quote(folder)}")
        folders.append(folder)
    return folders, changes


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def class_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Chooses class names that can be written, one per line, and read again; also returns the changes."""
    taken, written, changes = {*names}, list[str](), list[str]()
    for name in names:
        plain = plain_text(name) or "class"
        if plain != name:
            plain = next(free for free in chain([plain], (f"{plain} {n}" for n in count(2))) if free not in taken)
            taken.add(plain)
            changes.append(f"{quote(name)} is {quote(plain)}")
        written.append(plain)
    return written, changes


def plain_text(text: str) -> str:
    """Removes from text what a line of a text file or XML can't hold, and blanks at either end."""
    chars = (
        "_" if unicodedata.category(char) in _UNWRITABLE or char in _NO_TEXT else char for char in text.strip()
    )
    return "".join(chars)
