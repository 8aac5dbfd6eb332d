"""A trained job of a plan: its model, its measurement, and the names of its result files."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ssdir.console import Advance
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.device import choose_device, device_name
from ssdir.errors import InputError
from ssdir.evaluation.evaluate import EvaluationOptions, evaluate
from ssdir.evaluation.provenance import provenance
from ssdir.models.base import ObjectModel
from ssdir.models.io import load_model
from ssdir.models.shipped import WEIGHTS_FILE
from ssdir.reproduce.jobs import Job
from ssdir.training.run_folder import read_training

MEASUREMENT_VERSION = 3
"""Counts up where the measurement changes, so that everything is measured again."""


def record_config(job: Job, choice: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the configuration that is kept in the records of a job; neither training nor data are read.

    Args:
        job: the job.
        choice: how settings of its run were chosen; None if nothing was chosen.
    """
    config = {
        "version": MEASUREMENT_VERSION,
        "preset": job.preset,
        "measure": job.measure.model_dump(mode="json"),
        "probes": job.probes,
    }
    config |= {} if job.floors else {"floors": False}
    return config if choice is None else {**config, "choice": choice}


@dataclass(frozen=True)
class TrainedJob:
    """A trained job.

    Attributes:
        job: the job.
        folder: folder of its training.
        data: folder of its data set.
        glyph_root: folder of MNIST's files; None downloads them where they are needed.
        device: where to measure, see `choose_device`.
        choice: how settings of the run were chosen, see `ssdir.reproduce.choices`; None if nothing was chosen.
    """

    job: Job
    folder: Path
    data: Path
    glyph_root: Path | None
    device: str | None
    choice: Mapping[str, Any] | None = None

    def file(self, name: str) -> Path:
        """Returns the path of a result file, which depends on weights, data and measurement options."""
        return self.folder / "evaluation" / f"{self.key}-{name}"

    @cached_property
    def key(self) -> str:
        """Digest of the weights, the data, and the options of the measurement."""
        digest = hashlib.sha256((self.folder / "model" / WEIGHTS_FILE).read_bytes())
        digest.update(fingerprint(self.test).encode())
        options = [MEASUREMENT_VERSION, self.job.measure.model_dump(mode="json"), self.job.probes, self.job.floors]
        digest.update(json.dumps(options).encode())
        return digest.hexdigest()[:12]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that is kept in records."""
        return record_config(self.job, self.choice)

    @cached_property
    def test(self) -> ObjectDataset:
        """The measured split."""
        return self.job.recipe.open_data(self.data, self.job.split)

    def load(self) -> ObjectModel:
        """Loads the trained model."""
        return load_model(self.folder, choose_device(self.device))

    def measure(self, progress: Advance) -> dict[str, Any]:
        """Measures metrics, with provenance; the entry `failure` is set if embeddings are not finite."""
        job, settings, started = self.job, self.job.measure, time.perf_counter()
        options = EvaluationOptions(
            train_split=job.data.plan.train if job.probes else None,
            max_images=settings.test_images,
            max_train_images=settings.train_images,
            sizes_in_px=settings.sizes_in_px,
            num_glyphs=settings.glyphs if job.probes else 0,
            glyph_root=self.glyph_root,
            random_seed=job.recipe.seed,
            floors=job.floors,
        )
        try:
            report = evaluate(
                self.folder, self.data, job.split, options, device=self.device, progress=progress
            ).to_dict()
        except InputError:
            raise
        except ValueError as error:
            seconds, device = time.perf_counter() - started, device_name(choose_device(self.device))
            record = provenance({}, 0, fingerprint(self.test), device, seconds)
            record["training"] = read_training(self.folder / "model")
            report = {"metrics": {}, "failure": str(error), "provenance": record}
        report["provenance"] |= {"config": self.config, "seed": job.recipe.seed}
        return report
