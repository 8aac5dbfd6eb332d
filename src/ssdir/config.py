"""Typed configs: a base class, YAML presets, ``key=value`` overrides, and errors as sentences.

Each config class lives beside what it configures; this module only reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ssdir.documents import MAX_YAML_BYTES, parse_yaml, read_text
from ssdir.errors import InputError, nearest
from ssdir.formatting import quote
from ssdir.validation import requirement


class Config(BaseModel):
    """Base of every config: unknown keys are errors, values are frozen and validated, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Record(BaseModel):
    """Base of metadata in files: frozen, strictly typed, and unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


C = TypeVar("C", bound=BaseModel)


def parse(config_class: type[C], values: Any, *, source: str) -> C:
    """Validates `values` as a `config_class`.

    Raises:
        InputError: if they are no mapping, or not as the class has them: it names the first offending key by its
            dotted path, and the nearest known key.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{source}: expected keys and values, got {quote(values)}")
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        raise InputError(_sentence(config_class, values, error, source)) from None


def _sentence(
    config_class: type[BaseModel], values: Mapping[str, Any], error: ValidationError, source: str
) -> str:
    first = error.errors()[0]
    path = _written_path(first["loc"], values, missing=first["type"] == "missing")
    dotted = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        known = _keys(config_class, [str(part) for part in path[:-1]])
        hint = nearest(str(path[-1]), known) or (f"; known keys: {', '.join(known)}" if known else "")
        return f"{source}: unknown key {quote(dotted)}{hint}"
    where = f"'{dotted}'" if dotted else "the value"
    if first["type"] == "missing":
        return f"{source}: {where} is missing"
    if (wanted := requirement(first)) is not None:
        return f"{source}: {where} {wanted}, got {quote(first['input'])}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    got = "" if isinstance(first["input"], Mapping) else f" (got {quote(first['input'])})"
    return f"{source}: {where + ': ' if dotted else ''}{message}{got}"


def _written_path(location: tuple[int | str, ...], values: Any, *, missing: bool) -> list[int | str]:
    """A location as the user wrote it: pydantic also names validators and members of unions."""
    path: list[int | str] = []
    for part in location:
        is_item = isinstance(values, (list, tuple)) and isinstance(part, int) and part < len(values)
        if not is_item and not (isinstance(values, Mapping) and part in values):
            continue
        values = values[part]
        path.append(part)
    return [*path, location[-1]] if missing else path


def _keys(config_class: type[BaseModel], path: list[str]) -> list[str]:
    """Returns the field names of the config at `path` below `config_class`."""
    current: Any = config_class
    for part in path:
        fields = _fields(current)
        if part not in fields:
            return []
        current = fields[part].annotation
    return sorted(_fields(current))


def _fields(annotation: Any) -> dict[str, Any]:
    """Fields of a config class, or of every config class of a union."""
    fields = dict(getattr(annotation, "model_fields", {}))
    for member in get_args(annotation):
        fields |= getattr(member, "model_fields", {})
    return fields


def presets() -> list[str]:
    """The names of the shipped presets."""
    folder = resources.files("ssdir") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def preset_purpose(name: str) -> str:
    """Returns what a preset is for: the first line of its file, which is a comment."""
    text = (resources.files("ssdir") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return text.splitlines()[0].removeprefix("# ")


def read_values(name_or_file: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Reads a preset by name, or a YAML file by path, and applies ``a.b.c=value`` overrides.

    A file may start from a preset with the key ``base: NAME``; its own values win.

    Raises:
        InputError: for an unknown preset, an unreadable file, or a malformed override.
    """
    name = str(name_or_file)
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise InputError(f"config file '{name}' does not exist")
        values = parse_values(read_text(name, MAX_YAML_BYTES), name)
    elif name in presets():
        text = (resources.files("ssdir") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
        values = parse_values(text, name)
    else:
        hint = nearest(name, presets())
        raise InputError(f"unknown preset {quote(name)}{hint} (presets: {', '.join(presets())}; or a .yaml file)")
    values = with_base(values, name)
    # Merged among themselves first, because another `kind` drops all that stands beside it in the preset.
    changes: dict[str, Any] = {}
    for override in overrides:
        changes = merge(changes, _override(override))
    return merge(values, changes)


def with_base(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Merges values into those of the preset that they name as their ``base``; without one they are returned.

    Raises:
        InputError: if there is no such preset.
    """
    own = dict(values)
    if not (base := own.pop("base", None)):
        return own
    if not isinstance(base, str) or base not in presets() or base == source:
        raise InputError(f"{source}: base {quote(base)} is not another preset{nearest(str(base), presets())}")
    return merge(read_values(base), own)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested mappings: `changes` win; lists, and mappings of another `kind`, are replaced whole."""
    if "kind" in base and changes.get("kind", base["kind"]) != base["kind"]:
        return dict(changes)
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_values(text: str, source: str) -> dict[str, Any]:
    """Keys and values of a YAML text.

    Raises:
        InputError: as `parse_yaml`; if it holds no keys and values, or a key is not text.
    """
    values = parse_yaml(text, source)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected keys and values, got a {type(values).__name__}")
    if wrong := [key for key in values if not isinstance(key, str)]:
        raise InputError(f"{source}: unknown key {quote(wrong[0])}: keys are names")
    return values


def _override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InputError(f"override {quote(text)} must look like key=value, for example seed=1")
    try:
        parsed: Any = parse_yaml(value, "")
    except InputError:
        raise InputError(f"override {quote(text)} must look like key=value, and the value be valid YAML") from None
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return dict(parsed)
