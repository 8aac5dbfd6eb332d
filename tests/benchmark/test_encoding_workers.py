"""Workers that measure encoding have all started before anything is measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import pytest

from ssdir.benchmark.encoding_cost import _Jobs
from ssdir.benchmark.encoding_workers import WorkerKind, encoding_workers
from ssdir.data.samples import sample_images
from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.inference.engines import load_encoder
from ssdir.models.shipped import model_source


def test_all_workers_are_ready_when_the_block_is_entered(tmp_path: Path) -> None:
    file = str(tmp_path / "image.png")
    cv2.imwrite(file, sample_images(1)[0].image)
    encoder = load_encoder("tiny-digits", device="cpu")
    jobs = _Jobs(tmp_path, Identity.of(model_source("tiny-digits"), encoder), [file], 0.01)
    job = jobs._job(1, 2)
    started = time.time()
    with encoding_workers(WorkerKind("tiny-digits", "cpu", 1), 2) as workers:
        entered = time.time() - started
        alone, together = workers.alone(job), workers.together(job)
    starts = {part.start_seconds for part in (alone, *together)}
    assert len(starts) == 2, "each worker has its own start"
    assert max(starts) <= entered


def test_a_worker_that_dies_at_its_start_is_one_sentence() -> None:
    with (
        pytest.raises(InputError, match="a worker that measured encoding has died: is there memory for 2 of them"),
        encoding_workers(WorkerKind(os.devnull, "cpu", 1), 2),
    ):
        pytest.fail("the block is entered without workers")
