"""Two processes with half of each batch take the steps of one process with the whole of it."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, multiprocessing

from ssdir.data.transforms import AugmentConfig
from ssdir.documents import yaml_text
from ssdir.errors import InputError
from ssdir.models.detected.consistency import ConsistencyConfig, agreement
from ssdir.models.detected.mixture import (
    BALANCE,
    LOSS_MOMENTUM,
    MixturePrior,
    MixturePriorConfig,
    class_agreement,
    mixture_kl,
)
from ssdir.models.detected.views import View
from ssdir.models.detector.refiner import RefinerConfig
from ssdir.objects import Objects
from ssdir.ops.distributed import gather_rows, gather_values, normalizer, part_of, totals
from ssdir.ops.distributed import rows_of as part_of_rows
from ssdir.training.batch_norm import shared_batch_norm
from ssdir.training.devices import make_fabric
from ssdir.training.recipe import Recipe, read_recipe

from .common import changed, rows_of, summary, with_detector

LR, STEPS = 1e-4, 10
"""Small steps: rounding differs between one process and two, and large steps would amplify it."""


@pytest.fixture(scope="module")
def everything(recipe: Recipe) -> Recipe:
    """Returns a recipe with batch norm, noise, views, augmentation and a short last batch."""
    whole = with_detector(recipe, refiner=RefinerConfig(size=3, channels=8, hidden=16), score_threshold=0.05)
    views = ConsistencyConfig(
        weight=1, view="copy_paste", elastic=0.02, stroke_width=0.5, random_erasing=1, jitter=0.02, views=2
    )
    loss = whole.model.loss.model_copy(update={"classes": 1.0})
    model = whole.model.model_copy(update={"consistency": views, "loss": loss})
    quick: dict[str, Any] = {"epochs": 2, "batch_size": 14, "lr": LR, "schedule": "constant"}
    whole = changed(changed(whole, "detector", **quick, keep="best"), "representation", **quick, grad_clip=1.0)
    augment = AugmentConfig(flip=0.5, photometric=0.5, zoom_out=0.5, iou_crop=0.5, scale_jitter=0.5)
    return whole.model_copy(update={"model": model, "augment": augment, "classes": "all", "precision": "single"})


def train_by_command(recipe: Recipe, data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    file = out.with_suffix(".yaml")
    file.write_text(yaml_text(recipe.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "ssdir", "train", str(file), *more, "--data", str(data), "--out", str(out)]
    return run_alone([*command, "--device", "cpu"])


def run_alone(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    alone = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment = {**alone, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=True)


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Returns the distance between two models, divided by the length of Adam's steps."""
    apart = sum(float((first[name] - second[name]).square().sum()) for name in first)
    return apart**0.5 / (LR * STEPS * sum(tensor.numel() for tensor in first.values()) ** 0.5)


def check_equal_runs(run: Path, expected: Path) -> None:
    """Asserts that weights and logged losses are equal within rounding."""
    for part in ("detector/model", "model"):
        first, second = (load_file(folder / part / "model.safetensors") for folder in (run, expected))
        assert distance(first, second) < 0.05
    for stage in ("detector", "representation"):
        logged, wanted = (rows_of(folder / stage / "metrics.csv") for folder in (run, expected))
        assert len(logged) == len(wanted) == 2
        for row, other in zip(logged, wanted, strict=True):
            assert row.keys() == other.keys()
            for name, value in other.items():
                assert float(row[name]) == pytest.approx(float(value), rel=5e-3, abs=1e-6), name
        assert summary(run, stage)["ended"]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(everything: Recipe, scattered: Path, tmp_path: Path) -> None:
    one = train_by_command(everything, scattered, tmp_path / "one")
    two = train_by_command(everything, scattered, tmp_path / "two", "devices=2")
    assert one.stdout.replace("/one", "/two").splitlines()[-1] == two.stdout.splitlines()[-1]
    assert two.stdout.count("next:") == 1, "one of the processes prints"
    check_equal_runs(tmp_path / "two", tmp_path / "one")


ONE_EPOCH = """
import sys
from pathlib import Path
from ssdir.training.fit import train
from ssdir.training.recipe import read_recipe
from ssdir.training.session import OutOfTime, Session

recipe, data, out, devices = sys.argv[1:]
try:
    train(read_recipe(recipe, [devices]), Path(data), Path(out), resume=True, session=Session(None, 0.0, "cpu"))
except OutOfTime:
    pass
"""


@pytest.mark.slow
def test_a_run_can_be_resumed_on_other_devices(everything: Recipe, scattered: Path, tmp_path: Path) -> None:
    train_by_command(everything, scattered, tmp_path / "one")
    (script := tmp_path / "one_epoch.py").write_text(ONE_EPOCH)
    for devices in (1, 2, 1, 2):
        where = [str(tmp_path / "one.yaml"), str(scattered), str(tmp_path / "changing"), f"devices={devices}"]
        run_alone([sys.executable, str(script), *where])
    check_equal_runs(tmp_path / "changing", tmp_path / "one")


def test_several_devices_share_a_batch() -> None:
    with pytest.raises(InputError, match=r"detector\.batch_size=\d+ cannot be divided among devices=3 on nodes=1"):
        read_recipe("tiny", ["devices=3"])
    assert read_recipe("tiny", ["devices=2", "nodes=2"]).nodes == 2
    # A model without a detector has no stage for it.
    assert read_recipe("space-64", ["devices=3", "representation.batch_size=12"]).devices == 3


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
        check_mixture(rank)
        check_noise(rank)
        check_batch_norm(rank)
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
    assert totals([COUNTS[rank], 1], device) == [sum(COUNTS), len(COUNTS)]
    assert gather_values(rank) == [0, 1, 2]
    start = sum(COUNTS[:rank])
    first, _ = embeddings(sum(COUNTS))
    assert torch.equal(gather_rows(first[start : start + COUNTS[rank]]), first)


def check_agreement(rank: int) -> None:
    """Asserts that the mean gradient over processes is that of one process with all objects."""
    whole, again = embeddings(sum(COUNTS))
    rows = slice(sum(COUNTS[:rank]), sum(COUNTS[: rank + 1]))
    share = whole.detach()[rows].requires_grad_()
    loss = agreement(share, [(again[rows], torch.arange(sum(COUNTS))[rows])], 0.2)
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


def check_mixture(rank: int) -> None:
    """Asserts that classes are balanced over all processes' objects, with the gradients of one process."""
    total = sum(COUNTS)
    mine = slice(sum(COUNTS[:rank]), sum(COUNTS[: rank + 1]))
    torch.manual_seed(3)
    prior = MixturePrior(4, MixturePriorConfig(kind="mixture", components=3, heads=2, agreement=1.0))
    seen = torch.randn(2, total, 4)

    def objects(z_what: Tensor) -> Objects:
        boxes = torch.full((len(z_what), 4), 0.5)
        image = torch.zeros(len(z_what), dtype=torch.int64)
        return Objects(image, 1, boxes, z_what=z_what, z_what_scale=torch.full_like(z_what, 0.1))

    images = torch.zeros(1, 3, 8, 8)
    again = View(images, objects(seen[1, mine]), torch.arange(total)[mine])
    with shared_batch_norm(prior):
        terms = prior.terms(objects(seen[0, mine]), [again])
        (terms["kl_what"] + terms["class_agreement"]).backward()
    shared = {name: parameter.grad for name, parameter in prior.named_parameters()}
    prior.zero_grad()
    probs, others = prior(seen.flatten(0, 1)).split(total)
    kl = mixture_kl(seen[0], torch.full_like(seen[0], 0.1), probs, prior.loc, prior.log_scale.exp())
    expected = class_agreement(probs, others, BALANCE)
    torch.testing.assert_close(terms["class_agreement"], expected.mean())
    torch.testing.assert_close(prior.losses, (1 - LOSS_MOMENTUM) * expected.detach())
    (kl.mean(dim=1).sum() / len(COUNTS) + expected.mean()).backward()
    for name, parameter in prior.named_parameters():
        gradient = shared[name]
        assert gradient is not None
        distributed.all_reduce(gradient)
        torch.testing.assert_close(gradient / len(COUNTS), parameter.grad)


def check_noise(rank: int) -> None:
    """Asserts that the processes' noise, in their order, is what one process draws for all rows."""
    mine = slice(sum(COUNTS[:rank]), sum(COUNTS[: rank + 1]))
    whole = torch.zeros(sum(COUNTS), 3, 4, 2)
    laid_out = whole.to(memory_format=torch.channels_last)
    rows = part_of_rows(COUNTS[rank], whole.device)
    torch.manual_seed(1)
    expected = [torch.randn_like(whole), torch.rand_like(laid_out), torch.randperm(len(whole))]
    expected += [torch.randn(len(whole), 5), torch.rand(len(whole))]
    copies = torch.randn(2 * len(whole), 3).view(2, len(whole), 3)
    next_number = torch.rand(())
    torch.manual_seed(1)
    samples = [rows.randn_like(whole[mine]), rows.rand_like(laid_out[mine]), rows.permutation()]
    samples += [rows.randn(5), rows.rand()]
    for got, wanted in zip(samples, expected, strict=True):
        assert torch.equal(got, wanted[mine])
    assert torch.equal(rows.randn_of_copies(2, 3), copies[:, mine].reshape(-1, 3))
    assert torch.rand(()) == next_number, "all generators stay equal"


def check_batch_norm(rank: int) -> None:
    """Asserts that outputs, gradients and running statistics equal torch's batch norm of the whole batch."""
    mine = slice(sum(COUNTS[:rank]), sum(COUNTS[: rank + 1]))
    one_dimensional = torch.nn.BatchNorm1d(4, momentum=None)
    for norm, shape in (
        (torch.nn.BatchNorm2d(4), (4, 3, 2)),
        (one_dimensional, (4,)),
        (BatchNormAct2d(4), (4, 3, 2)),
    ):
        torch.manual_seed(2)
        torch.nn.init.normal_(norm.weight)
        whole = (3 + torch.randn(sum(COUNTS), *shape)).requires_grad_()
        slopes = torch.randn(sum(COUNTS), *shape)
        one = copy.deepcopy(norm)
        expected = one(whole)
        (expected * slopes).sum().backward()
        own = whole.detach()[mine].requires_grad_()
        with shared_batch_norm(norm):
            output = norm(own)
            (output * slopes[mine]).sum().backward()
        torch.testing.assert_close(output, expected[mine])
        torch.testing.assert_close(own.grad, whole.grad[mine])  # type: ignore[index]
        for shared, alone in zip(norm.parameters(), one.parameters(), strict=True):
            distributed.all_reduce(shared.grad)
            torch.testing.assert_close(shared.grad, alone.grad)
        for shared, alone in zip(norm.buffers(), one.buffers(), strict=True):
            torch.testing.assert_close(shared, alone)
        norm.eval(), one.eval()
        torch.testing.assert_close(norm(own), one(own))


@pytest.mark.parametrize("total", [1, 2, 3, 7, 32])
def test_processes_have_all_of_a_batch_once(total: int) -> None:
    parts = [range(*part_of(total, rank, 3)) for rank in range(3)]
    if total < 3:
        assert all(list(part) == list(range(total)) for part in parts), "too few: each computes all"
    else:
        assert [index for part in parts for index in part] == list(range(total))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.slow
def test_sums_over_processes(tmp_path: Path) -> None:
    multiprocessing.spawn(in_process, (f"file://{tmp_path / 'meeting'}",), nprocs=len(COUNTS))


def test_one_process_sums_alone() -> None:
    rows, device = torch.ones(2, 3), torch.device("cpu")
    assert gather_rows(rows) is rows
    assert (normalizer(0, device), normalizer(5, device), totals([5], device)) == (1, 5, [5])
    assert torch.equal(normalizer(torch.tensor(0), device), torch.tensor(1))
