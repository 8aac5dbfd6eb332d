"""Writes the page that lists every config key, from the config classes: their fields and their docstrings."""

from __future__ import annotations

import inspect
import json
import logging
import math
from collections.abc import Iterator
from typing import Any, get_args

import griffe
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ssdir.config import Config
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.moving import MovingConfig
from ssdir.reproduce.plan import Plan
from ssdir.training.recipe import Recipe

ROOTS: tuple[type[BaseModel], ...] = (Recipe, ScatterConfig, MovingConfig, Plan)
"""The configs that users write: for `ssdir train`, `ssdir data scatter`, and `ssdir reproduce`."""

LEAD = """# Every config key

After this page you know each key that a recipe, generated data or a plan of `ssdir reproduce` can have, its
values, and what it does. Keys are nested: `latent_dim` of a recipe's `model.encoder` is
`model: {encoder: {latent_dim: 128}}` in YAML, and `model.encoder.latent_dim=128` on the command line."""

TYPES = {"boolean": "true or false", "string": "text"}


def config_classes(annotation: Any) -> list[type[BaseModel]]:
    """Returns the config classes within a type: the type itself, or members of a union, tuple or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for part in get_args(annotation) for member in config_classes(part)]


def walk(config_class: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yields a config class and the config classes of its fields, depth first, each with its dotted path."""
    yield path, config_class
    for name, field in config_class.model_fields.items():
        for member in config_classes(field.annotation):
            yield from walk(member, f"{path}.{name}".lstrip("."))


def leaf_keys(config_class: type[BaseModel]) -> list[str]:
    """Returns the keys of a config class that hold values, not further configs."""
    return [name for name, field in config_class.model_fields.items() if not config_classes(field.annotation)]


def meanings(config_class: type[BaseModel]) -> dict[str, str]:
    """Returns the text of each documented key, from the `Attributes:` of the class and of its bases."""
    logging.getLogger("griffe").setLevel(logging.ERROR)  # It warns that docstrings don't repeat the types.
    documented: dict[str, str] = {}
    for base in reversed(config_class.__mro__):
        if not issubclass(base, Config):
            continue
        for section in griffe.Docstring(inspect.cleandoc(base.__dict__.get("__doc__") or "")).parse("google"):
            if section.kind is griffe.DocstringSectionKind.attributes:
                documented |= {key.name: " ".join(key.description.split()) for key in section.value}
    return documented


def page() -> str:
    """Returns the page: a section per config class, with its paths and a table of its keys."""
    paths: dict[type[BaseModel], list[str]] = {}
    for root in ROOTS:
        for path, config_class in walk(root):
            paths.setdefault(config_class, []).append(path)
    return "\n".join(
        [LEAD, *(line for config_class in paths for line in _section(config_class, paths[config_class]))]
    )


def _section(config_class: type[BaseModel], paths: list[str]) -> list[str]:
    name, known = config_class.__name__, meanings(config_class)
    schemas = config_class.model_json_schema()["properties"]
    about = " ".join(inspect.cleandoc(config_class.__doc__ or "").split("\n\n")[0].split())
    lines = ["", f"## {name} {{#{name}}}", "", about]
    if places := ", ".join(f"`{path}`" for path in dict.fromkeys(paths) if path):
        kind = schemas.get("kind", {}).get("const")
        lines += ["", f"At {places}{f', with `kind: {kind}`' if kind else ''}."]
    lines += ["", "| key | type | default | bounds | meaning |", "|---|---|---|---|---|"]
    for key, field in config_class.model_fields.items():
        schema = schemas[key]
        if "const" not in schema:  # A constant is the class's tag, which the line above names.
            cells = (f"`{key}`", _type(schema), _default(field), _bounds(schema), known[key].replace("|", r"\|"))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _type(schema: dict[str, Any]) -> str:
    """Returns the type of a value in words, by its JSON schema."""
    match schema:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name})"
        case {"anyOf": members} | {"oneOf": members}:
            return " or ".join(_type(member) for member in members)
        case {"enum": values}:
            return " or ".join(f"`{value}`" for value in values)
        case {"prefixItems": items}:
            return f"{len(items)} {_type(items[0])}s"
        case {"type": "array", "items": item}:
            return f"list of {_type(item)}".replace("integer", "integers").replace("number", "numbers")
        case {"type": "object"}:
            (item,) = schema.get("patternProperties", {"": schema.get("additionalProperties")}).values()
            return f"names to {_type(item)}"
        case _:
            return TYPES.get(schema.get("type", "any"), schema.get("type", "any"))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        kind = {"kind": value.kind} if len(config_classes(field.annotation)) > 1 else {}  # type: ignore[attr-defined]
        value = kind | value.model_dump(exclude_unset=True)
    plain = yaml.safe_dump(json.loads(json.dumps(value)), default_flow_style=True, sort_keys=False, width=math.inf)
    return f"`{plain.removesuffix('...' + chr(10)).strip()}`"


def _bounds(schema: dict[str, Any]) -> str:
    """Returns the bounds of a value, of the entries of a list, and of its length, by its JSON schema."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    parts = [_bounds(member) for member in schema.get("anyOf", [])]
    parts.append(
        ", ".join(f"{sign} {schema[name]:,}".removesuffix(".0") for name, sign in signs.items() if name in schema)
    )
    if isinstance(item := schema.get("items"), dict) and (bounds := _bounds(item)):
        parts.append(f"each {bounds}")
    if "prefixItems" not in schema and ("minItems" in schema or "maxItems" in schema):
        parts.append(
            f"{schema.get('minItems', 0)} to {schema['maxItems']:,} entries"
            if "maxItems" in schema
            else "not empty"
        )
    if "maxLength" in schema:
        parts.append(f"at most {schema['maxLength']:,} characters")
    return "; ".join(part for part in parts if part)
