"""Errors of pydantic are reported in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from ssdir.config import Config, parse
from ssdir.errors import InputError
from ssdir.validation import requirement


class _Cat(Config):
    kind: Literal["cat"] = "cat"


class _Dog(Config):
    kind: Literal["dog"] = "dog"


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (int, "many", "must be a whole number"),
        (int, 1.5, "must be a whole number"),
        (float, "x", "must be a number"),
        (Annotated[float, Field(allow_inf_nan=False)], float("nan"), "must be a finite number"),
        (bool, "perhaps", "must be true or false"),
        (str, 3, "must be text"),
        (list[int], "x", "must be a list"),
        (tuple[int, int], 3, "must be a list"),
        (dict[str, int], 3, "must be keys and values"),
        (_Cat, 3, "must be keys and values"),
        (Path, 3, "must be a path"),
        (Annotated[int, Field(ge=1)], 0, "must be at least 1"),
        (Annotated[float, Field(gt=0)], 0, "must be more than 0"),
        (Annotated[int, Field(le=65535)], 1_000_000, "must be at most 65535"),
        (Annotated[float, Field(lt=0.5)], 1, "must be less than 0.5"),
        (Annotated[int, Field(multiple_of=8)], 3, "must be a multiple of 8"),
        (Annotated[list[int], Field(min_length=1)], [], "must have at least 1 entry"),
        (Annotated[str, Field(max_length=2)], "xyz", "must have at most 2 characters"),
        (Literal["a", "b", "c"], "d", "must be a, b or c"),
        (Annotated[_Cat | _Dog, Field(discriminator="kind")], {"kind": "cow"}, "must be of the kind cat or dog"),
    ],
)
def test_each_kind_of_error_has_words(kind: Any, value: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    assert requirement(dict(caught.value.errors()[0])) == words


def test_a_kind_without_words_of_its_own_reads_on_after_the_key() -> None:
    class Times(Config):
        start: Annotated[str, Field(pattern="^[0-9]+$")]

    with pytest.raises(InputError, match=r"^x: 'start' must match pattern '.*', got 'noon'$"):
        parse(Times, {"start": "noon"}, source="x")
    with pytest.raises(InputError, match=r"^x: 'start' is missing$"):
        parse(Times, {}, source="x")
