"""Tests of the list of the images of an encoding."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssdir.encoding import image_list
from ssdir.encoding.image_list import ImageList, ListDigest, write_image_list
from ssdir.storage import Location

IMAGES: list[Location] = [
    Path(f"/images/{number}.png") if number % 3 else f"s3://b/{number}" for number in range(23)
]


@pytest.fixture(autouse=True)
def short_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_list, "IMAGES_PER_GROUP", 4)
    monkeypatch.setattr(image_list, "IMAGES_PER_FILE", 8)


def test_any_images_are_read_across_groups_and_files(tmp_path: Path) -> None:
    digest = ListDigest(IMAGES)
    write_image_list(tmp_path, digest)
    assert digest.count == len(IMAGES)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "00000.parquet",
        "00001.parquet",
        "00002.parquet",
    ]
    listed = ImageList(tmp_path)
    for first in range(len(IMAGES)):
        for end in range(first + 1, len(IMAGES) + 1):
            assert listed.read(range(first, end)) == IMAGES[first:end]


def test_the_digest_is_of_the_order_and_of_each_name() -> None:
    def digest(images: list[Location]) -> str:
        counted = ListDigest(images)
        assert sum(map(len, counted.groups())) == len(images)
        return counted.digest

    assert digest(IMAGES) == digest(list(IMAGES))
    others = [IMAGES[::-1], IMAGES[:-1], [*IMAGES, "s3://b/new"], [Path("/images/1"), Path("/images/2")]]
    assert len({digest(IMAGES), *map(digest, others), digest([Path("/images/1"), Path("/images/22")])}) == 6
