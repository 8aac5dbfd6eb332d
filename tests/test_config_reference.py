"""The reference of config keys lists every key, with what it means."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from ssdir.config import Config


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "tools"))
    import config_reference

    return config_reference


def listed(reference: Any) -> set[type[Config]]:
    return {config_class for root in reference.ROOTS for _, config_class in reference.walk(root)}


def test_every_key_has_a_meaning(reference: Any) -> None:
    """The tag `kind` chooses the class, and needs no meaning of its own."""
    for config_class in listed(reference):
        documented = reference.meanings(config_class).keys() - {"kind"}
        assert documented == config_class.model_fields.keys() - {"kind"}, config_class.__name__


def test_every_config_class_of_the_package_is_listed(reference: Any) -> None:
    """The keys of a base class are listed with the classes that inherit them."""
    bases = {base for config_class in listed(reference) for base in config_class.__mro__}
    known, waiting = set(), [Config]
    while waiting:
        known.add(config_class := waiting.pop())
        waiting += config_class.__subclasses__()
    assert {config_class for config_class in known if config_class.__module__.startswith("ssdir.")} <= bases


def test_number_of_keys_does_not_grow(reference: Any) -> None:
    """A new key takes the place of another one, or raises these numbers on purpose."""
    import code_size

    keys = code_size.count_keys()
    assert keys["per_model"] <= 324
    assert keys["by_class"] <= 191


class Inner(Config):
    """A part.

    Attributes:
        width: its width,
            in pixels.
    """

    width: int = Field(3, ge=1, lt=2000)


class Outer(Inner):
    """A whole.

    Attributes:
        parts: those below.
        mode: a | b.
        sides: of each.
    """

    parts: dict[str, Inner] = Field(default_factory=dict)
    mode: str | None = Field(None, max_length=10)
    sides: tuple[float, ...] = Field(max_length=4)


def test_page_states_type_default_bounds_and_meaning(reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "ROOTS", (Outer,))
    page = reference.page()
    expected = """
        ## Outer {#Outer}

        A whole.

        | key | type | default | bounds | meaning |
        |---|---|---|---|---|
        | `width` | integer | `3` | ≥ 1, < 2,000 | its width, in pixels. |
        | `parts` | names to [Inner](#Inner) | `{}` |  | those below. |
        | `mode` | text or null | `null` | at most 10 characters | a \\| b. |
        | `sides` | list of numbers | required | 0 to 4 entries | of each. |

        ## Inner {#Inner}

        A part.

        At `parts`.

        | key | type | default | bounds | meaning |
        |---|---|---|---|---|
        | `width` | integer | `3` | ≥ 1, < 2,000 | its width, in pixels. |
    """
    assert page.removeprefix(reference.LEAD).strip() == inspect.cleandoc(expected).strip()
