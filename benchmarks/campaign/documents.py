"""Damage to JSON and YAML: fields missing, doubled or of other types, numbers and names beyond reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from campaign.damage import CONTROL, HUGE, NOT_FINITE, OTHER_TYPES, OUTSIDE, TEXT, Damage, Rng, choose

HALF_SURROGATE = "\\ud800"

Slot: TypeAlias = tuple[Any, Any]
"""A mapping or list, and a key or place in it."""


def slots(value: Any, label: str = "") -> dict[str, list[Slot]]:
    """Returns a document's places by the names of their keys, so that each kind of field is equally likely."""
    named: dict[str, list[Slot]] = {}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in pairs:
        name = f"{label}.{key}" if isinstance(value, dict) else f"{label}[]"
        named.setdefault(name, []).append((value, key))
        for below, found in slots(child, name).items():
            named.setdefault(below, []).extend(found)
    return named


def pick(value: Any, rng: Rng, wanted: Callable[[Any], bool] = lambda _: True) -> Slot | None:
    """Chooses a place whose value fits."""
    matching = {
        name: [(box, key) for box, key in found if wanted(box[key])] for name, found in slots(value).items()
    }
    matching = {name: found for name, found in matching.items() if found}
    return choose(rng, matching[choose(rng, sorted(matching))]) if matching else None


def is_number(value: Any) -> bool:
    """Says whether a value is a number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Document:
    """A document to be changed; `holes` are raw text that no library writes, put in for their names at the end."""

    def __init__(self, path: Path, as_yaml: bool) -> None:
        text = path.read_text(encoding="utf-8")
        self.path, self.as_yaml, self.in_lines = path, as_yaml, path.suffix == ".jsonl"
        self.holes: dict[str, str] = {}
        if self.in_lines:
            self.value = [json.loads(line) for line in text.splitlines()]
        else:
            self.value = yaml.safe_load(text) if as_yaml else json.loads(text)

    def hole(self, raw: str) -> str:
        """Returns a name that is replaced by raw text at the end."""
        name = f"@hole{len(self.holes)}@"
        self.holes[name] = raw
        return name

    def save(self) -> None:
        """Writes the document back."""
        if self.as_yaml:
            text = yaml.safe_dump(self.value, sort_keys=False, allow_unicode=True)
        elif self.in_lines and isinstance(self.value, list):
            text = "".join(json.dumps(line) + "\n" for line in self.value)
        else:
            text = json.dumps(self.value, indent=1)
        for name, raw in self.holes.items():
            for quoted in (f'"{name}"', f"'{name}'", name):
                text = text.replace(quoted, raw)
        self.path.write_text(text, encoding="utf-8")


Edit: TypeAlias = Callable[[Document, Rng], None]


def missing_field(document: Document, rng: Rng) -> None:
    if slot := pick(document.value, rng):
        del slot[0][slot[1]]


def doubled_field(document: Document, rng: Rng) -> None:
    """Repeats a key with another value, or an item of a list."""
    slot = pick(document.value, rng)
    if slot is None:
        return
    box, key = slot
    if isinstance(box, list):
        box.insert(key, box[key])
    else:
        box[document.hole(json.dumps(key))] = choose(rng, (box[key], *OTHER_TYPES))


def swapped_type(document: Document, rng: Rng) -> None:
    if slot := pick(document.value, rng):
        box, key = slot
        others = [value for value in OTHER_TYPES if type(value) is not type(box[key])]
        box[key] = choose(rng, others)


def huge_number(document: Document, rng: Rng) -> None:
    if slot := pick(document.value, rng, is_number):
        value = choose(rng, HUGE)
        slot[0][slot[1]] = document.hole(str(value)) if isinstance(value, int) else value


def not_finite(document: Document, rng: Rng) -> None:
    if slot := pick(document.value, rng, is_number):
        slot[0][slot[1]] = choose(rng, NOT_FINITE)


def deep_nesting(document: Document, rng: Rng) -> None:
    depth = int(choose(rng, (60, 990, 5000, 100_000)))
    opening, closing = choose(rng, (("[", "]"), ('{"a":', "}")))
    if opening != "[" and document.as_yaml:
        opening, closing = "{a: ", "}"
    raw = opening * depth + "1" + closing * depth
    if rng.random() < 0.3:
        raw = opening * depth
    slot = pick(document.value, rng)
    if slot is None or rng.random() < 0.2:
        document.value = document.hole(raw)
    else:
        slot[0][slot[1]] = document.hole(raw)


def half_surrogate(document: Document, rng: Rng) -> None:
    if slot := pick(document.value, rng, lambda value: isinstance(value, str)):
        text = slot[0][slot[1]]
        slot[0][slot[1]] = document.hole(f'"{HALF_SURROGATE}{text[1:] if text.isascii() else ""}"')


def control_characters(document: Document, rng: Rng) -> None:
    if slot := pick(document.value, rng, lambda value: isinstance(value, str)):
        slot[0][slot[1]] = choose(rng, CONTROL)


def long_text(document: Document, rng: Rng) -> None:
    if slot := pick(document.value, rng, lambda value: not isinstance(value, dict | list)):
        slot[0][slot[1]] = choose(rng, ("x", "é ", "😀")) * int(choose(rng, (300, 5000, 1_000_000)))


def outside_path(document: Document, rng: Rng) -> None:
    def is_path(value: Any) -> bool:
        return isinstance(value, str) and ("." in value or "/" in value)

    if slot := pick(document.value, rng, is_path):
        slot[0][slot[1]] = str(choose(rng, OUTSIDE)).format(outside=document.path.parents[1] / "outside.png")


def another_top(document: Document, rng: Rng) -> None:
    document.value = choose(rng, (None, [], {}, [document.value], 3, "text", True, {"a": document.value}, [None]))


def many_entries(document: Document, rng: Rng) -> None:
    """Repeats an entry of a list or mapping a hundred thousand times."""
    if slot := pick(document.value, rng, lambda value: isinstance(value, list) and len(value) > 0):
        slot[0][slot[1]] = slot[0][slot[1]] * (100_000 // len(slot[0][slot[1]]))


EDITS: dict[str, Edit] = {
    "field missing": missing_field,
    "field doubled": doubled_field,
    "type swapped": swapped_type,
    "huge number": huge_number,
    "not finite": not_finite,
    "deep nesting": deep_nesting,
    "half surrogate": half_surrogate,
    "control characters": control_characters,
    "long text": long_text,
    "path outside": outside_path,
    "another top": another_top,
    "many entries": many_entries,
}


def edited(edit: Edit, as_yaml: bool) -> Damage:
    """Turns an edit of a document into damage to its file."""

    def damage(path: Path, rng: Rng) -> None:
        document = Document(path, as_yaml)
        edit(document, rng)
        document.save()

    return damage


def alias_bomb(path: Path, rng: Rng) -> None:
    """Writes nine lists, each of nine aliases of the one before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    path.write_text("\n".join(lines) + "\n" + path.read_text())


def odd_yaml(path: Path, rng: Rng) -> None:
    lines = (
        "x: !!python/object/apply:os.system ['touch executed']",
        "x: &x [*x]",
        "? [a, b]\n: 1",
        "name: 2020-99-99",
        "\tname: x",
        "1: 2",
        "x: !!binary '%%%'",
        "x: !!timestamp 2020-99-99",
        "x: !!float ''",
        "x: !!int 'abc'",
        "<<: 3",
        "x: *nothing",
        "--- \n--- \n",
        "%YAML 9.9\n---",
    )
    path.write_text(f"{choose(rng, lines)}\n{path.read_text()}")


JSON: dict[str, Damage] = {**TEXT, **{kind: edited(edit, False) for kind, edit in EDITS.items()}}
YAML: dict[str, Damage] = {
    **TEXT,
    **{kind: edited(edit, True) for kind, edit in EDITS.items() if kind != "half surrogate"},
    "bomb": alias_bomb,
    "odd syntax": odd_yaml,
}
