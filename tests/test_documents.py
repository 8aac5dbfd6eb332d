import os

import pytest

from ssdir.documents import (
    json_text,
    parse_json,
    parse_yaml,
    read_json,
    read_lines,
    read_text,
)
from ssdir.errors import InputError


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"items": [1]}', encoding="utf-8-sig")
    assert read_json(path) == {"items": [1]}


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"pipe\.json.*a pipe or a device, not a file"):
        read_text(path)


def test_yaml_has_the_types_that_people_mean():
    text = "a: no\nb: 010\nc: 5e-4\nd: 2020-99-99\ne: 1_000\nf: true\ng: ~\nh: 0x1f\ni: 1.10\nj: 12:30:00"
    assert parse_yaml(text, "x") == {
        **{"a": "no", "b": 10, "c": 5e-4, "d": "2020-99-99", "e": "1_000", "f": True, "g": None, "h": 31},
        **{"i": 1.1, "j": "12:30:00"},
    }
    assert parse_yaml("[no, 010, 1.10, ~, '']", "x", as_text=True) == ["no", "010", "1.10", "~", ""]


def _bomb(levels=12):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (_bomb(), "aliases stand for more than"),
        ("a: &a [*a]", "nested too deep, or within itself"),
        ("[" * 5000, "nested too deep"),
        ("a: 1\nb: 2\na: 3", "line 3 .*'a' is given twice"),
        ("? [1]\n: 2", "not valid YAML at line 1"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML at line 1"),
        ("a: \x07", "not valid YAML"),
        ("a: !!int x", "not valid YAML"),
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_yaml_that_is_not_data_is_one_sentence(text, problem, as_text):
    with pytest.raises(InputError, match=f"^file.yaml: .*{problem}"):
        parse_yaml(text, "file.yaml", as_text=as_text)


def test_aliases_are_read_where_they_are_few():
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", "x")["c"] == {"x": 1, "y": 2}


def test_text_is_utf_8_or_says_what_it_is(tmp_path):
    path = tmp_path / "a.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text("é\n b ", encoding=encoding)
        assert read_lines(path) == ["é", "b"]
    path.write_bytes("a\né".encode("latin-1"))
    with pytest.raises(InputError, match=r"not UTF-8 text \(line 2\)"):
        read_text(path)
    with pytest.raises(InputError, match="too large"):
        read_text(path, limit=2)
    with pytest.raises(InputError, match="is a directory"):
        read_text(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_text(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "too deep"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"a": "\\uD800"}', "surrogate"),
        ("1" * 5000, "digits"),
        ("", "line 1"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_json_that_is_not_data_is_one_sentence(text, problem):
    with pytest.raises(InputError, match=f"^file.json: .*{problem}"):
        parse_json(text, "file.json")


def test_json_may_escape_what_is_text():
    assert parse_json('["\\ud83d\\ude00"]', "x") == ["😀"]


def test_written_json_is_the_standards():
    assert json_text({"a": 1.5}, indent=None) == '{"a": 1.5}\n'
    with pytest.raises(ValueError):
        json_text({"a": float("nan")})
