import json

import pytest

from ssdir.data.json_files import read_json, stream_json
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
