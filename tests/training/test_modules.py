"""Steps of the optimisers."""

from __future__ import annotations

import pytest
import torch
from timm.optim import muon as timm_muon
from torch import Tensor, nn

from ssdir.training import muon
from ssdir.training.modules import LitStage
from ssdir.training.recipe import StageConfig

LR = 0.01


class LitNet(LitStage):
    """One step of a convolution."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__(config, seed=0)
        torch.manual_seed(0)
        self.net = nn.Conv2d(8, 24, 3)

    def step(self) -> dict[str, Tensor]:
        """By how much each parameter changes, in learning rates."""
        before = {name: tensor.detach().clone() for name, tensor in self.net.named_parameters()}
        optimizer = self.configure_optimizers()
        assert isinstance(optimizer, torch.optim.Optimizer)
        self.net(torch.randn(2, 8, 6, 6)).square().sum().backward()
        optimizer.step()
        return {name: (tensor.detach() - before[name]) / LR for name, tensor in self.net.named_parameters()}


def test_muons_steps_are_orthogonal_and_as_large_as_adams_usually_are() -> None:
    step = LitNet(StageConfig(optimizer="muon", lr=LR)).step()
    lengths = torch.linalg.svdvals(step["weight"].flatten(1)) / (0.2 * 72**0.5)  # Adam's have an RMS of 0.2
    assert lengths.min() > 0.8
    assert lengths.max() < 1.2
    torch.testing.assert_close(step["bias"].abs(), torch.ones(24), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("has_instructions", "least", "most"), [(True, 1e-4, 1e-2), (False, 0.0, 1e-6)])
def test_muons_steps_are_of_the_precision_that_the_cpu_multiplies_in(
    has_instructions: bool, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "multiplies_bf16", {"cpu": has_instructions}.get)
    lit = LitNet(StageConfig(optimizer="muon", lr=LR))
    orthogonalize = timm_muon.zeropower_via_newtonschulz
    step = lit.step()["weight"].flatten(1)
    assert timm_muon.zeropower_via_newtonschulz is orthogonalize
    gradient = lit.net.weight.grad
    assert gradient is not None
    coefficients = timm_muon.resolve_ns_coefficients("quintic", timm_muon._COEFFICIENTS)
    exact = -orthogonalize(gradient.flatten(1).double(), 5, coefficients, dtype=torch.float64)
    off = (step.double() / step.norm() - exact / exact.norm()).square().mean().sqrt()
    assert least <= off <= most


def test_adams_first_step_is_a_sign() -> None:
    for change in LitNet(StageConfig(optimizer="adamw", lr=LR)).step().values():
        torch.testing.assert_close(change.abs(), torch.ones_like(change), rtol=1e-3, atol=0)
