"""Tests of the optimisers' steps."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from timm.optim import muon as timm_muon
from torch import Tensor, nn

from ssdir.training.muon import orthogonalize
from ssdir.training.recipe import StageConfig
from ssdir.training.steps import build_optimizer, build_schedule, load_optimizer

LR = 0.01


class Net(nn.Module):
    """A convolution that is trained for one step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(8, 24, 3)

    def step(self, optimizer: Literal["adamw", "muon"]) -> dict[str, Tensor]:
        """Returns by how much each parameter changes, in learning rates."""
        before = {name: tensor.detach().clone() for name, tensor in self.net.named_parameters()}
        chosen = build_optimizer(self, StageConfig(optimizer=optimizer, lr=LR))
        self.net(torch.randn(2, 8, 6, 6)).square().sum().backward()
        chosen.step()
        return {name: (tensor.detach() - before[name]) / LR for name, tensor in self.net.named_parameters()}


def test_muons_steps_are_orthogonal_and_as_large_as_adams_usually_are() -> None:
    step = Net().step("muon")
    lengths = torch.linalg.svdvals(step["weight"].flatten(1)) / (0.2 * 72**0.5)  # Adam's have an RMS of 0.2
    assert lengths.min() > 0.8
    assert lengths.max() < 1.2
    torch.testing.assert_close(step["bias"].abs(), torch.ones(24), rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", [(24, 72), (72, 24), (300, 700), (700, 300), (128, 128)])
def test_blocks_are_orthogonalised_as_by_timm(shape: tuple[int, int]) -> None:
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=g) * torch.logspace(0, -2, shape[1])
    coefficients = timm_muon.resolve_ns_coefficients("quintic", timm_muon._COEFFICIENTS)
    wide = matrix if shape[0] <= shape[1] else matrix.T
    expected = torch.cat(
        [
            timm_muon.zeropower_via_newtonschulz(block.double(), 5, coefficients, dtype=torch.float64)
            for block in wide.split(100 if len(wide) == 300 else 128)
        ]
    )
    orthogonal = orthogonalize(matrix, 5, coefficients)
    assert orthogonal.shape == shape
    orthogonal = orthogonal if shape[0] <= shape[1] else orthogonal.T
    torch.testing.assert_close(orthogonal.double(), expected, rtol=0, atol=1e-4)


def test_a_gradient_of_zeros_changes_nothing() -> None:
    coefficients = timm_muon.resolve_ns_coefficients("quintic", timm_muon._COEFFICIENTS)
    assert orthogonalize(torch.zeros(7, 9), 5, coefficients).count_nonzero() == 0


def test_timms_function_is_as_before_after_a_step() -> None:
    original = timm_muon.zeropower_via_newtonschulz
    Net().step("muon")
    assert timm_muon.zeropower_via_newtonschulz is original


def test_adams_first_step_is_a_sign() -> None:
    for change in Net().step("adamw").values():
        torch.testing.assert_close(change.abs(), torch.ones_like(change), rtol=1e-3, atol=0)


def test_a_loaded_optimizer_goes_on_in_another_memory_layout() -> None:
    whole, halves = Net().to(memory_format=torch.channels_last), Net().to(memory_format=torch.channels_last)
    config = StageConfig(optimizer="adamw", lr=LR)
    first, second = build_optimizer(whole, config), build_optimizer(halves, config)
    for step in range(4):
        if step == 2:
            kept = copy.deepcopy(second.state_dict())
            for values in kept["state"].values():  # As checkpoints are read.
                values.update({name: value.contiguous() for name, value in values.items()})
            second = build_optimizer(halves, config)
            load_optimizer(second, kept)
        for module, optimizer in ((whole, first), (halves, second)):
            optimizer.zero_grad()
            images = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(step))
            module.net(images).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(halves.net.weight, whole.net.weight)


def test_the_exponential_schedule_warms_up_and_halves() -> None:
    """The authors of Slot Attention multiply min(1, step / warmup) and 0.5^(step / half life)."""
    config = StageConfig(schedule="exponential", lr=LR, warmup_steps=4, half_life=8)
    optimizer = build_optimizer(Net(), config)
    schedule = build_schedule(optimizer, config, steps=100)
    assert schedule is not None
    rates = []
    for _ in range(17):
        rates.append(optimizer.param_groups[0]["lr"] / LR)
        optimizer.step()
        schedule.step()
    assert rates[0] == 0
    assert rates[2] == pytest.approx(0.5 * 0.5**0.25)
    assert [rates[4], rates[8], rates[16]] == pytest.approx([0.5**0.5, 0.5, 0.25])
