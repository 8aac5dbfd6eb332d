"""Reading of text, JSON and YAML: a value, or one sentence that names the file and the line."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Any

import yaml

from ssdir.console import reading
from ssdir.errors import InputError
from ssdir.formatting import quote

MAX_TEXT_BYTES = 1 << 28
"""Largest text or JSON file, annotations of data sets apart."""

MAX_YAML_BYTES = 1 << 20
"""Largest YAML file: the parser takes seconds for each megabyte."""

_MAX_YAML_VALUES = 100_000
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_bytes(path: str | Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Reads a file whole, and shows progress where it takes long.

    Raises:
        InputError: if the file is missing, not readable, or has more than `limit` bytes.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"'{path}' is too large to be read ({size:,} bytes; the limit is {limit:,})")
        with reading(path) as file:
            return file.read()
    except FileNotFoundError:
        raise InputError(f"'{path}' does not exist") from None
    except OSError as error:
        raise InputError(f"'{path}' can't be read ({(error.strerror or str(error)).lower()})") from None


def read_text(path: str | Path, limit: int = MAX_TEXT_BYTES) -> str:
    """Reads a text file: UTF-8, or UTF-16 where a byte order mark says so.

    Args:
        path: the file.
        limit: most bytes that it may have.

    Raises:
        InputError: as `read_bytes`, and if the file is not text.
    """
    raw = read_bytes(path, limit)
    encoding = "utf-16" if raw.startswith(_UTF16) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"'{path}' is not UTF-8 text (line {line}): save it as UTF-8") from None
    if (place := text.find("\0")) >= 0:  # The encoding is another, or the file is no text.
        line = text.count("\n", 0, place) + 1
        raise InputError(f"'{path}' is not UTF-8 text (line {line}): save it as UTF-8")
    return text


def read_lines(path: str | Path, limit: int = MAX_TEXT_BYTES) -> list[str]:
    """Reads the lines of a text file, without the white space around them.

    Raises:
        InputError: as `read_text`.
    """
    return [line.strip() for line in read_text(path, limit).split("\n")]


# JSON -----------------------------------------------------------------------------------------------------


def read_json(path: str | Path, limit: int = MAX_TEXT_BYTES) -> Any:
    """Reads a JSON file whole.

    Raises:
        InputError: as `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, limit), str(path))


def parse_json(text: str | bytes, source: str) -> Any:
    """Reads JSON text. NaN and infinity, which some tools write, become floats: check the values.

    Args:
        text: the document.
        source: what to call it in errors.

    Raises:
        InputError: if it is not JSON, is nested too deep, or holds text that can't be encoded; names the line.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: not valid JSON at line {error.lineno} ({error.msg})") from None
    except RecursionError:
        raise InputError(f"{source}: not valid JSON (lists within lists, too deep to read)") from None
    except ValueError as error:  # bytes that are no text, numbers of too many digits
        raise InputError(f"{source}: not valid JSON ({str(error).split(';')[0]})") from None
    # Half of a surrogate pair can be escaped in JSON, but can be neither printed nor written.
    escaped = "\\ud" in text.lower() if isinstance(text, str) else b"\\ud" in text.lower()
    if escaped:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(f"{source}: holds half of a surrogate pair (\\ud…), which is no text") from None
    return value


# YAML -----------------------------------------------------------------------------------------------------


def read_yaml(path: str | Path, *, as_text: bool = False) -> Any:
    """Reads a YAML file.

    Args:
        path: the file.
        as_text: every plain value stays the text that is written, so that a class may be called `no` or `010`.

    Raises:
        InputError: as `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, MAX_YAML_BYTES), str(path), as_text=as_text)


def parse_yaml(text: str, source: str, *, as_text: bool = False) -> Any:
    """Reads YAML by the core schema of YAML 1.2: `no` and `2020-01-01` are text, `5e-4` and `010` are numbers.

    Args:
        text: the document.
        source: what to call it in errors.
        as_text: see `read_yaml`.

    Raises:
        InputError: if it is not YAML, gives a key twice, or is nested or expanded (by aliases) beyond reason;
            names the line.
    """
    try:
        loader = (_TextLoader if as_text else _CoreLoader)(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _count_values(node, {}) > _MAX_YAML_VALUES:
                raise InputError(f"{source}: its aliases stand for more than {_MAX_YAML_VALUES:,} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        reason = f" ({error.problem})" if isinstance(error, _RepeatedKeyError) else ""
        raise InputError(f"{source}: not valid YAML{line}{reason}") from None
    except RecursionError:
        raise InputError(f"{source}: not valid YAML (nested too deep, or within itself)") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: not valid YAML ({error})") from None


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Counts the values of a node once its aliases are written out; each node is visited once."""
    if id(node) not in known:
        children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else []
        children = node.value if isinstance(node, yaml.SequenceNode) else children
        known[id(node)] = 1 + sum(_count_values(child, known) for child in children)
    return known[id(node)]


class _RepeatedKeyError(yaml.constructor.ConstructorError):
    """A mapping gives one key twice."""


class _TextLoader(yaml.SafeLoader):
    """Leaves plain values as they are written; a key given twice is an error."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Builds a mapping."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):  # The base refuses it.
                continue
            if key.value in seen:
                problem = f"the key {quote(key.value)} is given twice"
                raise _RepeatedKeyError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """Reads an integer: decimal, even after a zero, or hexadecimal and octal as YAML 1.2 writes them."""
        text = str(self.construct_scalar(node))
        return int(text, 0 if re.match(r"[-+]?0[xo]", text) else 10)


class _CoreLoader(_TextLoader):
    """Reads plain values by the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_TextLoader.add_constructor("tag:yaml.org,2002:int", _TextLoader.construct_whole_number)
for _tag, _pattern, _first in (
    ("merge", r"^<<$", "<"),
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        "-+.0123456789",
    ),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class _Dumper(yaml.SafeDumper):
    """Puts in quotation marks whatever text YAML 1.1 or the core schema of 1.2 would take for something else."""


for _first, _resolvers in _CoreLoader.yaml_implicit_resolvers.items():
    for _tag, _pattern_of_tag in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _pattern_of_tag, [_first])


def yaml_text(values: Any, flow: bool | None = False) -> str:
    """Writes YAML that any loader reads back as it was, keys in their order.

    Args:
        values: plain values in dictionaries and lists.
        flow: write lists and dictionaries in brackets; None does so for the innermost ones.
    """
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, default_flow_style=flow)
    return text


def json_text(value: Any, indent: int | None = 2) -> str:
    """Writes JSON by the standard, which has no NaN and infinity, ending in a line break.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(value, indent=indent, allow_nan=False) + "\n"
