from math import log

import pytest
import torch
from pydantic import ValidationError

from ssdir.models.losses import normal_kl
from ssdir.models.presence import Schedule, bernoulli_kl, sample_relaxed_bernoulli


def test_schedule_stands_moves_and_stands() -> None:
    schedule = Schedule(start=1.0, end=0.2, from_step=100, to_step=200)
    values = [schedule.value(step) for step in (0, 100, 125, 150, 200, 10_000)]
    assert values == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.2, 0.2])


def test_schedule_of_no_length_jumps() -> None:
    schedule = Schedule(start=0.0, end=1.0, from_step=5, to_step=5)
    assert [schedule.value(step) for step in (4, 5, 6)] == [0.0, 1.0, 1.0]


def test_schedule_back_in_time_is_refused() -> None:
    with pytest.raises(ValidationError, match="to_step is 5, expected at least from_step, 9"):
        Schedule(start=0, end=1, from_step=9, to_step=5)


def test_bernoulli_kl_against_a_hand_computed_value() -> None:
    # 0.8 log(0.8 / 0.1) + 0.2 log(0.2 / 0.9)
    expected = 0.8 * log(8) + 0.2 * log(2 / 9)
    kl = bernoulli_kl(torch.tensor([log(4.0)]), 0.1)
    torch.testing.assert_close(kl, torch.tensor([expected]))


def test_bernoulli_kl_against_its_sum_and_zero_at_the_prior() -> None:
    logits = torch.linspace(-8, 8, 17)
    present = logits.double().sigmoid()
    expected = present * (present / 0.03).log() + (1 - present) * ((1 - present) / 0.97).log()
    torch.testing.assert_close(bernoulli_kl(logits, torch.tensor(0.03)), expected.float())
    assert bernoulli_kl(torch.logit(torch.tensor([0.03])), 0.03).abs().max() < 1e-6


def test_bernoulli_kl_of_a_rare_prior_is_not_cut() -> None:
    torch.testing.assert_close(bernoulli_kl(torch.tensor([40.0]), 1e-10), torch.tensor([10 * log(10)]))


def test_bernoulli_kl_stays_finite_at_the_extremes() -> None:
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    values = bernoulli_kl(logits, 1e-10)
    values.sum().backward()
    assert values.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_normal_kl_against_its_formula() -> None:
    g = torch.Generator().manual_seed(0)
    loc, scale = torch.randn(5, 3, generator=g), torch.rand(5, 3, generator=g) + 0.1
    expected = (0.2 / scale).log() + (scale**2 + (loc + 1) ** 2) / (2 * 0.2**2) - 0.5
    torch.testing.assert_close(normal_kl(loc, scale, -1.0, 0.2), expected)


@pytest.mark.parametrize("temperature", [2.5, 0.5, 0.05])
def test_relaxed_samples_round_to_bernoulli(temperature: float) -> None:
    torch.manual_seed(0)
    logits = torch.full((20_000,), log(0.3 / 0.7))
    samples = sample_relaxed_bernoulli(logits, temperature)
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert float((samples > 0.5).float().mean()) == pytest.approx(0.3, abs=0.015)


def test_relaxed_samples_of_likely_objects_have_a_gradient() -> None:
    logits = torch.full((100,), 20.0, requires_grad=True)
    sample_relaxed_bernoulli(logits, 2.5).sum().backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_relaxed_samples_are_harder_when_colder_and_differentiable() -> None:
    logits = torch.zeros(5000, requires_grad=True)
    warm, cold = (sample_relaxed_bernoulli(logits, t) for t in (2.5, 0.1))
    assert ((cold - 0.5).abs() > 0.45).float().mean() > 0.8 > ((warm - 0.5).abs() > 0.45).float().mean()
    warm.sum().backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()
