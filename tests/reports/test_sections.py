"""Sections of a report show the measured results, or that there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssdir.evaluation.probing import LabelledLatents
from ssdir.reports import sections

NAMES = ["a", "b", "c"]

CSV = """epoch,step,train/box,train/total,val/box,val/total
0,9,,,0.75,2.5
0,9,0.5,3.0,,
1,19,,,0.25,1.5
1,19,0.125,1.0,,
"""


def blobs(count: int, seed: int) -> LabelledLatents:
    """Returns latents of three categories, which are well separated."""
    labels = torch.arange(count) % 3
    latents = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) + 10 * labels[:, None]
    return LabelledLatents(latents, labels, torch.ones(count), count)


def test_curves_are_read_over_epochs(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(CSV)
    assert sections.read_curves(path) == {
        "val/box": ([1, 2], [0.75, 0.25]),
        "val/total": ([1, 2], [2.5, 1.5]),
        "train/box": ([1, 2], [0.5, 0.125]),
        "train/total": ([1, 2], [3.0, 1.0]),
    }


def test_the_training_section_has_a_figure_per_stage(tmp_path: Path) -> None:
    for stage in ("detector", "representation"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "metrics.csv").write_text(CSV)
    section = sections.training_section(tmp_path, {"detector": "One.", "representation": "Two."})
    assert [figure.caption for figure in section.figures] == ["One.", "Two."]


def test_the_embedding_and_the_probe_have_figures() -> None:
    train, test = blobs(60, 0), blobs(30, 1)
    assert "30 test objects" in sections.embedding_section(test, NAMES).text[0]
    assert "60 objects and tested on 30" in sections.probe_section(train, test, NAMES).text[0]


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_objects_are_reported(count: int) -> None:
    few = blobs(count, 0)
    section = sections.embedding_section(few, NAMES)
    assert section.text[0].startswith("Too few objects")
    assert not section.figures
    if not count:
        assert sections.probe_section(few, blobs(9, 1), NAMES).text[0].startswith("Too few objects")


def test_provenance_lists_recorded_facts_only() -> None:
    section = sections.provenance_section(
        {"seed": 3, "versions": {"torch": "2.9"}, "config": {"detector": {"lr": 0.001}}, "cpu_count": 2}
    )
    assert section.table is not None
    facts = {row.label: row.values[0] for row in section.table.groups[0].rows}
    assert facts["seed"] == "3"
    assert facts["versions"] == "torch 2.9"
    assert "device" not in facts
    assert section.details[0].text == "detector:\n  lr: 0.001"
