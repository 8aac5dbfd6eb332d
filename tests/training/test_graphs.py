"""CUDA graphs capture a stage's dense parts and replay them, and steps stay the same."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ssdir.data.dataset import ObjectDataset, collate
from ssdir.device import seeded
from ssdir.models.detected.consistency import ConsistencyConfig
from ssdir.models.detected.encoders import AlignedEncoderConfig, PyramidEncoder
from ssdir.models.io import load_model
from ssdir.models.spair.model import SPAIR, SPAIRConfig
from ssdir.models.ssdir import SSDIR
from ssdir.training import loop
from ssdir.training.fit import train
from ssdir.training.graphs import DenseGraphs
from ssdir.training.loading import Batch
from ssdir.training.recipe import Recipe
from ssdir.training.steps import Objective

B = 4
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are captured on NVIDIA GPUs")


class OnHost:
    """A stand-in for graphs that counts replays by module, and returns the same memory each time, as graphs do."""

    def __init__(self) -> None:
        self.replays: Counter[str] = Counter()

    def __call__(self, part: nn.Module, args: tuple[Any, ...]) -> Callable[..., Any]:
        kept: list[Any] = []

        def replay(*given: Any) -> Any:
            self.replays[type(part.module).__name__] += 1
            outputs = part(*given)
            if torch.is_grad_enabled():
                return outputs
            kept.append(tree_map(torch.clone, outputs))
            return tree_map(lambda first, now: first.copy_(now), kept[0], outputs)

        return replay


def aligned(model: SSDIR) -> SSDIR:
    """Returns a model with the same detector, a trained copy of its backbone and second views, as in `tiny`."""
    encoder = AlignedEncoderConfig(latent_dim=8, samples=4, hidden_channels=16)
    config = model.config.model_copy(
        update={"encoder": encoder, "clone_backbone": True, "consistency": ConsistencyConfig(weight=10)}
    )
    with seeded(0):
        return SSDIR(config, model.class_names, detector=copy.deepcopy(model.detector))


def detector_stage(model: SSDIR) -> Objective:
    return Objective(copy.deepcopy(model.detector).requires_grad_(True))


def cells_stage(model: SSDIR) -> Objective:
    return Objective(copy.deepcopy(model))


def aligned_stage(model: SSDIR) -> Objective:
    return Objective(aligned(model))


STAGES: list[tuple[Callable[[SSDIR], Objective], dict[str, int]]] = [
    (detector_stage, {"SSD": 1}),
    (cells_stage, {"ConvBackbone": 1, "PyramidEncoder": 1}),
    (aligned_stage, {"ConvBackbone": 1}),
]


def batches_of(stage: Objective, split: ObjectDataset, sizes: list[int], device: str = "cpu") -> list[Batch]:
    """Returns batches of the given sizes for a stage."""
    made, first = [], 0
    for size in sizes:
        images, targets = collate([split[index] for index in range(first, first + size)])
        first += size
        if isinstance(stage.model, SSDIR):
            targets = targets.replace(anchor_index=stage.model.detector.assign(targets.z_where))
        made.append(Batch(images, targets).to(torch.device(device)))
    return made


def steps(stage: Objective, batches: list[Batch]) -> list[dict[str, Tensor]]:
    """Returns the losses of one step on each batch, and the weights and statistics afterwards."""
    parameters = [p for p in stage.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-2)
    stage.train()
    results = []
    torch.manual_seed(1)
    for batch in batches:
        losses = stage(batch)
        optimizer.zero_grad()
        losses["total"].backward()
        nn.utils.clip_grad_norm_(parameters, math.inf)
        optimizer.step()
        results.append({name: value.detach() for name, value in losses.items()})
    return [*results, {name: value.clone() for name, value in stage.state_dict().items()}]


@pytest.mark.parametrize(("make", "replays"), STAGES)
def test_steps_by_graphs_are_the_same_steps(
    make: Callable[[SSDIR], Objective], replays: dict[str, int], model: SSDIR, val: ObjectDataset
) -> None:
    batches = batches_of(make(model), val, [B, B, B - 1])
    plain = steps(make(model), batches)
    stage, on_host = make(model), OnHost()
    DenseGraphs(on_host).capture(stage, B)
    replayed = steps(stage, batches)
    for expected, got in zip(plain, replayed, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    # The last batch is smaller.
    assert on_host.replays == {name: 2 * count for name, count in replays.items()}


@pytest.mark.parametrize(("make", "replays"), STAGES)
def test_capturing_leaves_everything_as_it_was(
    make: Callable[[SSDIR], Objective], replays: dict[str, int], model: SSDIR
) -> None:
    stage, graphs = make(model), DenseGraphs(OnHost())
    before, numbers = copy.deepcopy(stage.state_dict()), torch.get_rng_state()
    graphs.capture(stage, B)
    torch.testing.assert_close(stage.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(parameter.grad is None for parameter in stage.parameters())
    assert sum("forward" in vars(module) for module in stage.modules()) == len(replays)
    graphs.release()
    assert not any("forward" in vars(module) for module in stage.modules())


class SecondFails(OnHost):
    """A stand-in for a GPU that captures one part, and fails at the next."""

    def __call__(self, part: nn.Module, args: tuple[Any, ...]) -> Callable[..., Any]:
        if isinstance(part.module, PyramidEncoder):
            part(*args)
            raise RuntimeError("operation not permitted when stream is capturing\nMore of it.")
        return super().__call__(part, args)


def test_without_a_graph_the_stage_is_as_it_was(model: SSDIR) -> None:
    stage, graphs = cells_stage(model), DenseGraphs(SecondFails())
    before = copy.deepcopy(stage.state_dict())
    with pytest.raises(RuntimeError, match="capturing"):
        graphs.capture(stage, B)
    assert not graphs.parts
    assert not any("forward" in vars(module) for module in stage.modules())
    torch.testing.assert_close(stage.state_dict(), before, rtol=0, atol=0)


def test_a_training_goes_on_where_nothing_can_be_captured(
    recipe: Recipe,
    scattered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loop, "has_graphs", lambda device: True)
    monkeypatch.setattr(loop, "DenseGraphs", lambda: DenseGraphs(SecondFails()))
    train(recipe, scattered, tmp_path / "run")
    printed = " ".join(capsys.readouterr().err.split())
    assert "kernel by kernel: operation not permitted when stream is capturing" in printed
    assert "More of it" not in printed


def test_validation_goes_the_usual_way(model: SSDIR, val: ObjectDataset) -> None:
    stage, on_host = detector_stage(model), OnHost()
    DenseGraphs(on_host).capture(stage, B)
    batches = batches_of(stage, val, [B])
    with torch.no_grad():
        stage(*batches)
    stage.eval()(*batches)
    assert not on_host.replays


def test_what_a_frozen_part_returned_outlives_its_next_replay(model: SSDIR, val: ObjectDataset) -> None:
    stage, on_host = cells_stage(model), OnHost()
    DenseGraphs(on_host).capture(stage, B)
    assert isinstance(stage.model, SSDIR)
    first, second = (batch.images for batch in batches_of(stage, val, [B, B]))
    with torch.no_grad():
        maps = stage.model.detector.read(first)
        kept = [level.clone() for level in maps]
        stage.model.detector.read(second)
    assert on_host.replays == {"ConvBackbone": 2}
    for level, before in zip(maps, kept, strict=True):
        assert torch.equal(level, before)


def test_models_without_dense_parts_have_no_graphs() -> None:
    graphs = DenseGraphs(OnHost())
    graphs.capture(Objective(SPAIR(SPAIRConfig(), ["object"])), B)
    assert not graphs.parts


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU sums in no certain order")
def test_a_training_by_graphs_is_the_same_training(
    recipe: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In bfloat16 a CPU's kept maps are of another type than those read anew, which is all that a GPU's stage has.
    recipe = recipe.model_copy(update={"precision": "single"})
    train(recipe, scattered, tmp_path / "plain")
    on_host, released = OnHost(), []

    class Watched(DenseGraphs):
        def release(self) -> None:
            released.append([type(part).__name__ for part in self.parts])
            super().release()

    monkeypatch.setattr(loop, "DenseGraphs", lambda: Watched(on_host))
    monkeypatch.setattr(loop, "has_graphs", lambda device: True)
    train(recipe, scattered, tmp_path / "by graphs")
    # Three epochs of four steps in either stage; the frozen backbone's maps are kept.
    assert on_host.replays == {"SSD": 12, "PyramidEncoder": 12}
    assert released == [["SSD"], ["ConvBackbone", "PyramidEncoder"]]
    plain, replayed = (load_model(tmp_path / name / "model").state_dict() for name in ("plain", "by graphs"))
    torch.testing.assert_close(replayed, plain, rtol=0, atol=0)


@needs_gpu
@pytest.mark.parametrize(("make", "replays"), STAGES)
def test_a_gpu_replays_the_same_steps(
    make: Callable[[SSDIR], Objective], replays: dict[str, int], model: SSDIR, val: ObjectDataset
) -> None:
    totals = []
    for by_graphs in (False, True):
        stage, graphs = make(model).to("cuda"), DenseGraphs()
        if by_graphs:
            graphs.capture(stage, B)
            assert len(graphs.parts) == len(replays)
        whole, smaller = batches_of(stage, val, [B, B - 1], "cuda")
        totals.append([float(losses["total"]) for losses in steps(stage, [*[whole] * 4, smaller])[:-1]])
        graphs.release()
    plain, replayed = totals
    assert replayed == pytest.approx(plain, rel=5e-3), "a GPU sums in no certain order"
    assert plain[3] < 0.99 * plain[0], "the steps learn"
