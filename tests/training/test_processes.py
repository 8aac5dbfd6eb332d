"""Two processes with half of each batch take the steps of one process with the whole of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from ssdir.documents import yaml_text
from ssdir.errors import InputError
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.detected.consistency import agreement
from ssdir.models.detector.refiner import RefinerConfig
from ssdir.models.detector.ssd import AnchorConfig
from ssdir.models.io import load_model
from ssdir.ops.distributed import gather_rows, normalizer, smallest
from ssdir.training.devices import make_fabric
from ssdir.training.recipe import Recipe, read_recipe

from .common import changed, rows_of, summary, with_detector

TINY, LR, STEPS = 1e-6, 1e-4, 8


@pytest.fixture(scope="module")
def noiseless(recipe: Recipe) -> Recipe:
    """Processes draw different noise, so here it is next to none; and no batch norm, which the CPU can't share."""
    bare = with_detector(
        recipe,
        backbone=TimmConfig(name="test_convnext", num_levels=2, top_down=16),
        anchors=AnchorConfig(min_sizes=(12, 24), max_sizes=(24, 48)),
        refiner=RefinerConfig(size=3, channels=8, hidden=16, jitter=TINY, copies=1),
        score_threshold=0.0,
    )
    encoder = bare.model.encoder.model_copy(update={"what_scale": TINY, "depth_scale": TINY})
    loss = bare.model.loss.model_copy(update={"kl_what": 0.0, "kl_depth": 0.0, "classes": 1.0})
    model = bare.model.model_copy(update={"encoder": encoder, "loss": loss})
    quick: dict[str, Any] = {"epochs": 2, "lr": LR, "grad_clip": None, "schedule": "constant"}
    bare = changed(changed(bare, "detector", **quick), "representation", **quick)
    return bare.model_copy(update={"model": model, "classes": "all", "precision": "single"})


def train_by_command(recipe: Recipe, data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    file = out.with_suffix(".yaml")
    file.write_text(yaml_text(recipe.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "ssdir", "train", str(file), *more, "--data", str(data), "--out", str(out)]
    alone = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment = {**alone, "OMP_NUM_THREADS": "1"}
    command += ["--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=True)


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """How far two models are from each other, over how far Adam's steps go."""
    apart = sum(float((first[name] - second[name]).square().sum()) for name in first)
    return apart**0.5 / (LR * STEPS * sum(tensor.numel() for tensor in first.values()) ** 0.5)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(noiseless: Recipe, scattered: Path, tmp_path: Path) -> None:
    one = train_by_command(noiseless, scattered, tmp_path / "one")
    two = train_by_command(noiseless, scattered, tmp_path / "two", "devices=2")
    assert one.stdout.replace("/one", "/two").splitlines()[-1] == two.stdout.splitlines()[-1]
    assert two.stdout.count("next:") == 1, "one of the processes prints"
    for part in ("detector/model", "model"):
        whole, shared = (load_model(tmp_path / run / part).state_dict() for run in ("one", "two"))
        assert distance(whole, shared) < 0.01
    for stage in ("detector", "representation"):
        logged, expected = (rows_of(tmp_path / run / stage / "metrics.csv") for run in ("two", "one"))
        assert len(logged) == len(expected) == 2
        for got, wanted in zip(logged, expected, strict=True):
            assert got.keys() == wanted.keys()
            for name, value in wanted.items():
                assert float(got[name]) == pytest.approx(float(value), rel=2e-3, abs=1e-6), name
        assert summary(tmp_path / "two", stage)["ended"]


def test_several_devices_share_a_batch() -> None:
    with pytest.raises(InputError, match=r"detector\.batch_size=\d+ cannot be divided among devices=3 on nodes=1"):
        read_recipe("tiny", ["devices=3"])
    assert read_recipe("tiny", ["devices=2", "nodes=2"]).nodes == 2


def test_a_device_by_number_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdir.training.devices.choose_device", torch.device)
    with pytest.raises(InputError, match=r"'cuda:1' is one, but the recipe asks for devices=2"):
        make_fabric(read_recipe("tiny", ["devices=2"]), "cuda:1")


# Sums over processes ------------------------------------------------------------------------------------------

COUNTS = (3, 0, 5)
"""Objects of each process."""


def in_process(rank: int, place: str) -> None:
    distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=len(COUNTS))
    try:
        check_sums(rank)
        check_agreement(rank)
    finally:
        distributed.destroy_process_group()


def embeddings(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(rows, 4, generator=generator) for _ in range(2))
    return first.requires_grad_(), second


def check_sums(rank: int) -> None:
    device = torch.device("cpu")
    assert float(normalizer(COUNTS[rank], device)) == pytest.approx(sum(COUNTS) / len(COUNTS))
    assert float(normalizer(torch.tensor(COUNTS[rank]), device)) == pytest.approx(sum(COUNTS) / len(COUNTS))
    assert float(normalizer(0, device)) == pytest.approx(1 / len(COUNTS)), "at least one object in all"
    assert smallest(COUNTS[rank], device) == min(COUNTS)
    start = sum(COUNTS[:rank])
    first, _ = embeddings(sum(COUNTS))
    assert torch.equal(gather_rows(first[start : start + COUNTS[rank]]), first)


def check_agreement(rank: int) -> None:
    """The mean over processes of the gradients is that of one process with all objects."""
    whole, again = embeddings(sum(COUNTS))
    rows = slice(sum(COUNTS[:rank]), sum(COUNTS[: rank + 1]))
    share = whole.detach()[rows].requires_grad_()
    loss = agreement(share, [(again[rows], torch.arange(COUNTS[rank]))], 0.2)
    loss.backward()
    first, second = torch.nn.functional.normalize(whole), torch.nn.functional.normalize(again)
    logits, own = first @ second.T / 0.2, torch.arange(sum(COUNTS))
    expected = (
        torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)
    ) / 2
    expected.backward()
    torch.testing.assert_close(loss, expected)
    assert share.grad is not None
    assert whole.grad is not None
    torch.testing.assert_close(share.grad / len(COUNTS), whole.grad[rows])


@pytest.mark.slow
def test_sums_over_processes(tmp_path: Path) -> None:
    multiprocessing.spawn(in_process, (f"file://{tmp_path / 'meeting'}",), nprocs=len(COUNTS))


def test_one_process_sums_alone() -> None:
    rows, device = torch.ones(2, 3), torch.device("cpu")
    assert gather_rows(rows) is rows
    assert (normalizer(0, device), normalizer(5, device), smallest(5, device)) == (1, 5, 5)
    assert torch.equal(normalizer(torch.tensor(0), device), torch.tensor(1))
