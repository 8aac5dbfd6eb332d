import json
import os

import pytest

from ssdir.documents import (
    json_text,
    parse_json,
    parse_yaml,
    read_json,
    read_lines,
    read_text,
    stream_json,
)
from ssdir.errors import InputError


def test_items_come_one_by_one_and_numbers_are_floats(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"info": {"items": 3}, "items": [{"a": 1.5}, [], "x"], "more": []}))
    items = list(stream_json(path, "items.item"))
    assert items == [{"a": 1.5}, [], "x"]
    assert isinstance(items[0]["a"], float)
    assert list(stream_json(path, "none.item")) == []


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"items": [1]}', encoding="utf-8-sig")
    assert list(stream_json(path, "items.item")) == [1.0]
    assert read_json(path) == {"items": [1]}


def test_items_before_a_mistake_are_handed_out(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"items": [1, 2,' + "\n" * 100_000 + "?]}")
    stream = stream_json(path, "items.item")
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(InputError, match="line 100001 "):
        next(stream)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"items": [}', 1),
        ('{"items": [1,\n2,\n3 4]}', 3),
        ('{"items":\n[1, 2', 2),
        ("", 1),
        ('{"items": [\n' + '"x",\n' * 50_000 + "nope]}", 50_002),
        ('{"items": [\n' + '"x",\n' * 50_000 + "1,\n]\n}\n" + " \n" * 90_000, 50_003),
        ('{"items": []}\n{', 2),
    ],
)
def test_the_line_of_a_mistake_is_named(tmp_path, text, line):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"a\.json: not valid JSON at line {line} ") as caught:
        list(stream_json(path, "items.item"))
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="not readable"):
        list(stream_json(tmp_path, "items.item"))
    with pytest.raises(InputError, match="not readable"):
        list(stream_json(tmp_path / "none.json", "items.item"))
    (tmp_path / "latin.json").write_bytes('{"items": ["é"]}'.encode("latin-1"))
    with pytest.raises(InputError, match="line 1 "):
        list(stream_json(tmp_path / "latin.json", "items.item"))


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    for read in (read_text, lambda path: list(stream_json(path, "items.item"))):
        with pytest.raises(InputError, match=r"pipe\.json.*a pipe or a device, not a file"):
            read(path)


def test_a_file_of_brackets_does_not_take_all_memory(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"items": [' + "[" * 100_000)
    with pytest.raises(InputError, match="more than 1000 brackets are open at once"):
        list(stream_json(path, "items.item"))
    path.write_text('{"items": [' + "[" * 5000 + "]" * 5000 + "]}")  # which the parser could still take
    with pytest.raises(InputError, match="more than 1000 brackets are open at once"):
        list(stream_json(path, "items.item"))
    shallow = [{"a": [[i]]} for i in range(3000)]
    path.write_text(json.dumps({"items": shallow}))
    assert list(stream_json(path, "items.item")) == shallow


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
