"""Kinds of damage to bytes, lines of text and XML: each changes a file in place, by seed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Rng: TypeAlias = np.random.Generator
Damage: TypeAlias = Callable[[Path, Rng], None]

OTHER_TYPES: tuple[Any, ...] = (None, True, False, "text", "", "7", "0", 0, -1, 1.5, [], {}, [1], {"a": 1}, [[]])
HUGE: tuple[Any, ...] = (10**30, -(10**30), 1e308, -1e308, 2**63, 2**31, 10**9, 10**7, -1, 1e-320, 10**400)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
CONTROL = (
    "a\x00b",
    "\x1b[31mred",
    "a\nb",
    "a\r\nb",
    "\u202eabc",
    "\ufeff",
    " ",
    "\x7f",
    "a\tb",
    "-rf",
    "a,b",
    '"',
)
OUTSIDE = ("../../outside.png", "../outside/outside.png", "/etc/passwd", "..\\..\\outside.png", "{outside}")


def choose(rng: Rng, values: Sequence[Any]) -> Any:
    """Chooses one of the values."""
    return values[int(rng.integers(len(values)))]


# Bytes ------------------------------------------------------------------------------------------------------


def flip_bits(path: Path, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    for position in rng.integers(0, max(1, len(data)), int(choose(rng, (1, 3, 20)))) if data else ():
        data[position] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def cut(path: Path, rng: Rng) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(1, max(2, len(data))))])


def empty(path: Path, rng: Rng) -> None:
    path.write_bytes(choose(rng, (b"", b"", b"\n", b"  \n\n", b"\x00")))


def insert_bytes(path: Path, rng: Rng) -> None:
    data, place = path.read_bytes(), 0
    place = int(rng.integers(0, len(data) + 1))
    path.write_bytes(data[:place] + rng.bytes(int(choose(rng, (1, 4, 300)))) + data[place:])


def blank_block(path: Path, rng: Rng) -> None:
    """Writes a block of zeros, as a disk leaves that lost a sector."""
    data = bytearray(path.read_bytes())
    start = int(rng.integers(0, max(1, len(data))))
    stop = min(len(data), start + int(choose(rng, (8, 64, 512))))
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)


def double_block(path: Path, rng: Rng) -> None:
    data = path.read_bytes()
    start, stop = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    path.write_bytes(data[:stop] + data[start:])


def foreign_content(path: Path, rng: Rng) -> None:
    """Replaces the contents by those of another format."""
    contents = (
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"PK\x03\x04" + bytes(40),
        b"%PDF-1.7\n",
        b"<html></html>\n",
        b"PAR1",
    )
    path.write_bytes(choose(rng, (*contents, b"{}", b"null", rng.bytes(2000))))


def no_file(path: Path, rng: Rng) -> None:
    """Puts a folder, a link to nothing, a link to itself, or a pipe that nobody writes to in the file's place."""
    kind = choose(rng, ("folder", "dangling", "loop", "pipe"))
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path.with_name("nothing") if kind == "dangling" else path)


def wrong_encoding(path: Path, rng: Rng) -> None:
    data = path.read_bytes()
    text = data.decode("utf-8", "replace")
    place = int(rng.integers(0, len(data) + 1))
    ways = (
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-16-le"),
        lambda: text.encode("utf-32"),
        lambda: b"\xef\xbb\xbf" + data,
        lambda: data[:place] + b"\xe9\xff" + data[place:],
        lambda: data[:place] + b"\x00" + data[place:],
        lambda: data[:place] + b"\xed\xa0\x80" + data[place:],  # half a surrogate pair
        lambda: data.replace(b"\n", b"\r"),
    )
    path.write_bytes(choose(rng, ways)())


BYTES: dict[str, Damage] = {
    "bits flipped": flip_bits,
    "cut": cut,
    "emptied": empty,
    "bytes inserted": insert_bytes,
    "block blanked": blank_block,
    "block doubled": double_block,
    "foreign content": foreign_content,
    "no file": no_file,
}
TEXT: dict[str, Damage] = {**BYTES, "wrong encoding": wrong_encoding}


# Lines ------------------------------------------------------------------------------------------------------


def in_lines(change: Callable[[list[str], int, Rng], list[str]]) -> Damage:
    """Changes the tokens of one line: what stands between blanks, commas or equal signs."""

    def damage(path: Path, rng: Rng) -> None:
        lines = path.read_text(encoding="utf-8").split("\n")
        filled = [number for number, line in enumerate(lines) if line.strip()]
        number = choose(rng, filled)
        tokens = re.split(r"([ ,=]+)", lines[number])
        place = 2 * int(rng.integers(0, (len(tokens) + 1) // 2))
        lines[number] = "".join(change(tokens, place, rng))
        path.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")

    return damage


def replaced(values: Callable[[Rng, str], Any]) -> Damage:
    """Replaces a token by another text."""

    def change(tokens: list[str], place: int, rng: Rng) -> list[str]:
        return [*tokens[:place], str(values(rng, tokens[place])), *tokens[place + 1 :]]

    return in_lines(change)


def many_lines(path: Path, rng: Rng) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(text * (2_000_000 // max(1, len(text))), encoding="utf-8")


LINES: dict[str, Damage] = {
    **TEXT,
    "field missing": in_lines(lambda tokens, place, rng: tokens[:place] + tokens[place + 2 :]),
    "field doubled": in_lines(
        lambda tokens, place, rng: [*tokens[: place + 1], (tokens[1:2] or [" "])[0], *tokens[place:]]
    ),
    "type swapped": replaced(lambda rng, _: choose(rng, ("text", "", "null", "None", "True", "1.5", "-1", "[1]"))),
    "huge number": replaced(lambda rng, _: choose(rng, HUGE)),
    "not finite": replaced(lambda rng, _: choose(rng, ("nan", "inf", "-inf", "NaN", "Infinity", "1e999"))),
    "control characters": replaced(lambda rng, _: choose(rng, CONTROL)),
    "long text": replaced(lambda rng, _: "x" * int(choose(rng, (300, 5000, 1_000_000)))),
    "path outside": replaced(lambda rng, _: choose(rng, OUTSIDE[:4])),
    "many entries": many_lines,
}


# XML --------------------------------------------------------------------------------------------------------


def in_elements(change: Callable[[str, str, Rng], str]) -> Damage:
    """Changes one element that holds text; `change` receives its name and its text."""

    def damage(path: Path, rng: Rng) -> None:
        text = path.read_text(encoding="utf-8")
        found = list(re.finditer(r"<(\w+)>([^<]*)</\1>", text))
        by_name: dict[str, list[re.Match[str]]] = {}
        for match in found:
            by_name.setdefault(match[1], []).append(match)
        match = choose(rng, by_name[choose(rng, sorted(by_name))])
        path.write_text(text[: match.start()] + change(match[1], match[2], rng) + text[match.end() :])

    return damage


def with_text(values: Sequence[Any]) -> Damage:
    return in_elements(lambda name, _, rng: f"<{name}>{choose(rng, values)}</{name}>")


def nested_deep(name: str, text: str, rng: Rng) -> str:
    depth = int(choose(rng, (990, 20_000, 200_000)))
    return f"<{name}>{'<a>' * depth}{'</a>' * depth}</{name}>"


def entity_bomb(path: Path, rng: Rng) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    declared = f'<!DOCTYPE a [<!ENTITY e0 "x">{entities}<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    body = path.read_text().replace("</name>", f"{choose(rng, ('&e9;', '&f;'))}</name>")
    path.write_text(f"{declared}{body}")


XML: dict[str, Damage] = {
    **TEXT,
    "field missing": in_elements(lambda name, text, rng: ""),
    "field doubled": in_elements(lambda name, text, rng: f"<{name}>{text}</{name}><{name}>9</{name}>"),
    "type swapped": with_text(("", "text", "null", "1,5", "<b>1</b>", "true", "-1")),
    "huge number": with_text(HUGE),
    "not finite": with_text(("nan", "inf", "-inf", "1e999")),
    "deep nesting": in_elements(nested_deep),
    "control characters": with_text(("a&#1;b", "a&#10;b", "\x1b[31m", "a&#0;", "\u202eabc", " ", "a\tb")),
    "half surrogate": with_text(("&#xD800;", "a&#55296;b")),
    "long text": with_text(("x" * 5000, "x" * 1_000_000)),
    "path outside": with_text(OUTSIDE[:4]),
    "bomb": entity_bomb,
}
