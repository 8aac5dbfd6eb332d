"""What a value must be, in plain words: pydantic's errors are sentences about its own types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ssdir.formatting import counted

_EXPECTED = {
    "a whole number": ("int_type", "int_parsing", "int_from_float", "int_parsing_size"),
    "a number": ("float_type", "float_parsing"),
    "a finite number": ("finite_number",),
    "true or false": ("bool_type", "bool_parsing"),
    "text": ("string_type", "string_unicode", "string_sub_type"),
    "a list": ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"),
    "keys and values": ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"),
    "a path": ("path_type",),
    "null": ("none_required",),
}
_WORDS = {kind: words for words, kinds in _EXPECTED.items() for kind in kinds}
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_OWN = ("value_error", "assertion_error")
"""Errors of this package's validators, whose messages are sentences already."""


def requirement(error: Mapping[str, Any]) -> str | None:
    """Returns what a value must be, according to one of pydantic's errors: `must be at least 1`.

    None where the error has a message of its own.

    Args:
        error: one of `ValidationError.errors()`.
    """
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind in _WORDS:
        return f"must be {_WORDS[kind]}"
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"must be {words} {context[key]:.12g}"
    if kind in ("literal_error", "enum"):
        return f"must be {_unquoted(context['expected'])}"
    if kind == "union_tag_invalid":
        return f"must be of the kind {_unquoted(context['expected_tags'].replace(',', ' or'))}"
    if kind in ("too_short", "string_too_short"):
        return f"must have at least {_amount(kind, context['min_length'])}"
    if kind in ("too_long", "string_too_long"):
        return f"must have at most {_amount(kind, context['max_length'])}"
    if kind in (*_OWN, "missing", "extra_forbidden"):
        return None
    return re.sub(r"^\w+ should", "must", str(error["msg"]))


def _amount(kind: str, number: int) -> str:
    return counted(number, "character") if kind.startswith("string") else counted(number, "entry", "entries")


def _unquoted(names: str) -> str:
    """Turns pydantic's `'a', 'b' or 'c'` into `a, b or c`."""
    return names.replace("'", "")
