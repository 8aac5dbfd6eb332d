import pytest

from ssdir.formatting import about_seconds, counted, first_line, format_seconds, quote


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.97, "10 s"),
        (59.7, "1 min 00 s"),
        (271.2, "4 min 31 s"),
        (7200, "2 h 00 min"),
    ],
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "5 s"),
        (24, "25 s"),
        (44, "40 s"),
        (57, "1 min"),
        (89, "1 min"),
        (540.4, "9 min"),
        (5960, "99 min"),
        (9000, "2.5 h"),
    ],
)
def test_estimated_times_have_few_digits(seconds: float, text: str) -> None:
    assert about_seconds(seconds) == text


def test_counts_have_singular_and_plural() -> None:
    assert [counted(number, "image") for number in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
    assert [counted(number, "box", "boxes") for number in (1, 2)] == ["1 box", "2 boxes"]


def test_values_are_quoted_short_and_printable():
    assert quote("cat") == "'cat'"
    assert quote(None) == "None"
    assert quote("a\nb\ud800") == "'a\\nb\\\\ud800'" or quote("a\nb\ud800") == "'a\\nb\\ud800'"
    long = quote("x" * 1000 + "end")
    assert len(long) <= 60
    assert " … " in long
    assert long.endswith("end'")
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    assert len(quote(deep)) <= 60


def test_the_message_of_a_librarys_error_becomes_part_of_a_sentence():
    assert first_line(ValueError("no\x1b such thing.\nat line 7 of its source")) == "no\\x1b such thing"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 1000))) == 200
