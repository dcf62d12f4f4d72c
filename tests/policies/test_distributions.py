"""Densities against numerical integration, samples against densities, gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from robolearn.configuration.parts.policy import GaussianHeadConfig
from robolearn.policies.distributions import ActionDistribution, AffineDistribution
from robolearn.policies.heads.gaussian import EDGE, DiagonalGaussian, GaussianHead, TanhGaussian
from robolearn.policies.heads.mixture import GaussianMixture
from robolearn.policies.noise import BatchNoise

MEANS = torch.tensor([[[[-0.8]], [[0.1]], [[0.9]]]], dtype=torch.float64)
STDS = torch.tensor([[[[0.1]], [[0.3]], [[0.05]]]], dtype=torch.float64)
LOGITS = torch.tensor([[0.0, 1.0, -0.5]], dtype=torch.float64)


def one_dimensional() -> dict[str, ActionDistribution]:
    mean, std = torch.full((1, 1, 1), 0.4, dtype=torch.float64), torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    gaussian = DiagonalGaussian(mean, std)
    return {
        "gaussian": gaussian,
        "tanh": TanhGaussian(mean, std),
        "tanh at the edge": TanhGaussian(mean + 4.0, std),
        "tanh wide": TanhGaussian(mean, 5 * std),
        "mixture": GaussianMixture(LOGITS, MEANS, STDS),
        "affine": AffineDistribution(gaussian, torch.tensor([0.3]), torch.tensor([2.5])),
    }


def density(distribution: ActionDistribution, x: np.ndarray) -> np.ndarray:
    actions = torch.as_tensor(x).view(-1, 1, 1)
    return distribution.log_prob(actions).exp().numpy()


@pytest.mark.parametrize("name", list(one_dimensional()))
def test_density_integrates_to_one(name: str) -> None:
    distribution = one_dimensional()[name]
    squashed = name.startswith("tanh")
    # Substituting x = tanh(u) resolves the densities that pile up at the edges.
    u = np.linspace(-14.0, 14.0, 2_000_001)
    x, measure = (np.tanh(u), 1 / np.cosh(u) ** 2) if squashed else (u, np.ones_like(u))
    assert np.trapezoid(density(distribution, x) * measure, u) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("name", list(one_dimensional()))
def test_samples_follow_the_density(name: str) -> None:
    distribution = one_dimensional()[name]
    torch.manual_seed(1)
    draws = torch.cat([distribution.sample(BatchNoise(1, "cpu")) for _ in range(4000)]).view(-1).double().numpy()
    u = np.linspace(-14.0, 14.0, 400_001)
    squashed = name.startswith("tanh")
    x, measure = (np.tanh(u), 1 / np.cosh(u) ** 2) if squashed else (u, np.ones_like(u))
    mass = np.cumsum(density(distribution, x) * measure) * (u[1] - u[0])
    # Within EDGE of +-1 the density is flat by definition; compare outside of it.
    inner = draws[np.abs(draws) < 1 - EDGE] if squashed else draws
    low, high = (np.interp(v, x, mass) for v in ((-1 + EDGE, 1 - EDGE) if squashed else (-14.0, 14.0)))
    result = stats.kstest(inner, lambda v: (np.interp(v, x, mass) - low) / (high - low))
    assert result.pvalue > 1e-3
    assert len(inner) / len(draws) == pytest.approx(high - low, abs=0.03)


def test_tanh_gaussian_agrees_with_torch_away_from_the_edges() -> None:
    mean, std = torch.randn(7, 3, 2, dtype=torch.float64), torch.rand(7, 3, 2, dtype=torch.float64) + 0.2
    actions = torch.rand(7, 3, 2, dtype=torch.float64) * 1.9 - 0.95
    reference = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, std), torch.distributions.TanhTransform()
    )
    torch.testing.assert_close(TanhGaussian(mean, std).log_prob(actions), reference.log_prob(actions).sum((1, 2)))


@pytest.mark.parametrize("value", [1.0, -1.0, 1.0 - 1e-6, -1.0 + 6e-8, 1.0 - EDGE / 2])
def test_saturated_demonstrations_have_finite_log_probabilities_and_gradients(value: float) -> None:
    for start in (-30.0, 0.0, 5.0, 30.0):
        mean = torch.full((1, 1, 1), start, requires_grad=True)
        log_prob = TanhGaussian(mean, torch.full((1, 1, 1), 0.5)).log_prob(torch.full((1, 1, 1), value))
        log_prob.sum().backward()
        assert torch.isfinite(log_prob).all()
        assert mean.grad is not None
        assert torch.isfinite(mean.grad).all()
        assert float(log_prob.detach()) <= -math.log(EDGE) + 1e-5
        if start == 0.0:
            assert float(mean.grad) * value > 0, "the mean must be drawn to the edge"
        if start * value == 30.0:
            assert abs(float(mean.grad)) < 1e-6, "and left alone once there"


def test_samples_and_their_log_probabilities_agree() -> None:
    torch.manual_seed(0)
    mean, std = torch.randn(500, 2, 3), torch.rand(500, 2, 3) * 0.5 + 0.1
    distribution = TanhGaussian(mean, std)
    actions, log_prob = distribution.sample_with_log_prob(BatchNoise(500, "cpu"))
    inside = (actions.abs() < 1 - 2 * EDGE).all(-1).all(-1)
    assert inside.float().mean() > 0.8
    torch.testing.assert_close(log_prob[inside], distribution.log_prob(actions)[inside], rtol=1e-3, atol=2e-2)
    far = TanhGaussian(torch.full((4, 1, 1), 20.0), torch.ones(4, 1, 1))
    assert torch.isfinite(far.sample_with_log_prob(BatchNoise(4, "cpu"))[1]).all()


@pytest.mark.parametrize("bounds", [(1e-3, 0.5, 2.0), (1e-3, 0.04, 2.0), (0.1, 0.2, 0.3)])
def test_between_its_bounds_the_log_std_moves_no_faster_than_its_parameter(bounds: tuple[float, float, float]) -> None:
    low, initial, high = bounds
    config = GaussianHeadConfig(state_dependent_std=False, min_std=low, initial_std=initial, max_std=high)
    head = GaussianHead(config, feature_size=1, pred_steps=1, action_size=1)

    def std_at(raw: float) -> float:
        with torch.no_grad():
            head.raw_std.fill_(raw)  # type: ignore[union-attr]
        return head.distribution(torch.zeros(1, 1)).std.item()

    assert head.distribution(torch.zeros(1, 1)).std.item() == pytest.approx(initial)
    assert (std_at(-30.0), std_at(30.0)) == pytest.approx((low, high), rel=1e-5)
    raws = np.linspace(-9, 5, 281)
    stds = np.array([std_at(raw) for raw in raws])
    np.testing.assert_allclose(stds, (low + np.exp(raws)) / (1 + np.exp(raws) / high), rtol=1e-5)
    slopes = np.diff(np.log(stds)) / 0.05
    assert slopes.min() >= 0.0
    assert slopes.max() <= 1.0


@pytest.mark.parametrize(("bounded", "largest"), [(True, 1.05), (False, 50.0)])
def test_a_mean_goes_as_far_as_it_may(bounded: bool, largest: float) -> None:
    config = GaussianHeadConfig(squash=False, bounded_mean=bounded)
    head = GaussianHead(config, feature_size=1, pred_steps=2, action_size=3)
    with torch.no_grad():
        head.mean.weight.zero_()
        head.mean.bias.fill_(50.0)
    mean = head.distribution(torch.zeros(4, 1)).mode()
    torch.testing.assert_close(mean, torch.full((4, 2, 3), largest))


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, 3), (0.3, 2), (0.5, 1), (1.0, 1)])
def test_sampled_means_come_in_the_proportions_of_the_weights_that_are_kept(min_p: float, kept: int) -> None:
    count, weights = 20_000, LOGITS.softmax(-1)[0]  # shares of the heaviest: e^-1, 1, e^-1.5
    mixture = GaussianMixture(*(x.expand(count, *x.shape[1:]) for x in (LOGITS, MEANS, STDS)))
    draws = mixture.sample_likely(BatchNoise(count, "cpu", torch.Generator().manual_seed(0)), min_p).flatten()
    counts = torch.stack([(draws == mean).sum() for mean in MEANS.flatten()])
    expected = weights.where(weights >= min_p * weights.max(), 0.0)
    assert counts.sum() == count
    assert (counts > 0).tolist() == (expected > 0).tolist()
    assert (expected > 0).sum() == kept
    if kept > 1:
        shares = (expected / expected.sum())[expected > 0]
        assert stats.chisquare(counts[expected > 0], shares.numpy() * count).pvalue > 1e-3


def test_mixture_agrees_with_torch() -> None:
    torch.manual_seed(0)
    logits, mean, std = torch.randn(6, 4), torch.randn(6, 4, 3, 2), torch.rand(6, 4, 3, 2) + 0.1
    D = torch.distributions
    reference = D.MixtureSameFamily(D.Categorical(logits=logits), D.Independent(D.Normal(mean, std), 2))
    actions = torch.randn(6, 3, 2)
    torch.testing.assert_close(GaussianMixture(logits, mean, std).log_prob(actions), reference.log_prob(actions))


def test_invalid_steps_are_marginalised() -> None:
    torch.manual_seed(0)
    logits, mean, std = torch.randn(1, 3), torch.randn(1, 3, 2, 1), torch.rand(1, 3, 2, 1) + 0.1
    mixture = GaussianMixture(logits.double(), mean.double(), std.double())
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    first = torch.full_like(grid, 0.37)
    joint = mixture.log_prob(torch.stack([first, grid], -1)[..., None]).exp()
    integrated = torch.trapezoid(joint, grid).log()
    valid = torch.tensor([[True, False]])
    poisoned = torch.tensor([[[0.37], [float("nan")]]], dtype=torch.float64)
    torch.testing.assert_close(mixture.log_prob(poisoned, valid)[0], integrated, rtol=1e-6, atol=1e-6)


def test_chunks_of_many_dimensions_keep_precision_and_gradients_in_float32() -> None:
    torch.manual_seed(0)
    K, Tp, A = 5, 16, 14
    logits, mean = torch.randn(8, K), torch.randn(8, K, Tp, A)
    std = torch.rand(8, K, Tp, A) * 0.05 + 0.001
    actions = mean[:, 2] + std[:, 2] * torch.randn(8, Tp, A)
    single = [x.clone().requires_grad_() for x in (logits, mean, std)]
    double = [x.double().requires_grad_() for x in (logits, mean, std)]
    ours, exact = GaussianMixture(*single).log_prob(actions), GaussianMixture(*double).log_prob(actions.double())
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-3)
    ours.sum().backward()
    exact.sum().backward()
    for a, b in zip(single[1:], double[1:]):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.abs().sum() > 0
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=1e-2)


def test_entropy_estimates_and_their_gradients() -> None:
    """Mixture and tanh-Gaussian entropies against integrals, and d entropy / d parameter against differences."""

    def exact(logits: torch.Tensor, shift: float) -> float:
        x = np.linspace(-4, 4, 40001)
        p = density(GaussianMixture(logits, MEANS + shift * torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), STDS), x)
        return float(np.trapezoid(-p * np.log(np.maximum(p, 1e-300)), x))

    torch.manual_seed(0)
    logits = LOGITS.clone().requires_grad_()
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    mean = MEANS + shift * torch.tensor([1.0, 0, 0], dtype=torch.float64).view(1, 3, 1, 1)
    rows = 4000
    mixture = GaussianMixture(logits.expand(rows, 3), mean.expand(rows, 3, 1, 1), STDS.expand(rows, 3, 1, 1))
    estimate = mixture.entropy(BatchNoise(rows, "cpu"), samples=8).mean()
    estimate.backward()
    assert float(estimate.detach()) == pytest.approx(exact(LOGITS, 0.0), abs=0.02)
    step = 1e-3
    assert shift.grad is not None
    assert logits.grad is not None
    assert float(shift.grad) == pytest.approx((exact(LOGITS, step) - exact(LOGITS, -step)) / (2 * step), abs=0.03)
    for k in range(3):
        bump = torch.zeros_like(LOGITS)
        bump[0, k] = step
        difference = (exact(LOGITS + bump, 0.0) - exact(LOGITS - bump, 0.0)) / (2 * step)
        assert float(logits.grad[0, k]) == pytest.approx(difference, abs=0.03)


def test_default_entropy_gradient_is_unbiased() -> None:
    """The score-function form, on a Gaussian that hides its reparameterisation: d entropy / d log std = 1."""

    class Hidden(DiagonalGaussian):
        reparameterised = False

        def sample(self, noise: BatchNoise) -> torch.Tensor:
            return super().sample(noise).detach()

        def entropy(self, noise: BatchNoise, samples: int = 8) -> torch.Tensor:
            return ActionDistribution.entropy(self, noise, samples)

    torch.manual_seed(0)
    log_std = torch.tensor(-0.3, requires_grad=True)
    rows = 20000
    hidden = Hidden(torch.zeros(rows, 1, 1), log_std.exp().expand(rows, 1, 1))
    entropy = hidden.entropy(BatchNoise(rows, "cpu"), samples=4).mean()
    entropy.backward()
    assert float(entropy.detach()) == pytest.approx(-0.3 + 0.5 * math.log(2 * math.pi * math.e), abs=0.02)
    assert log_std.grad is not None
    assert float(log_std.grad) == pytest.approx(1.0, abs=0.05)


def test_affine_distribution_is_a_change_of_variables() -> None:
    torch.manual_seed(0)
    base = DiagonalGaussian(torch.randn(5, 2, 3), torch.rand(5, 2, 3) + 0.1)
    offset, scale = torch.randn(3), torch.tensor([0.5, 2.0, -3.0])
    affine = AffineDistribution(base, offset, scale)
    reference = torch.distributions.Normal(offset + scale * base.mean, base.std * scale.abs())
    actions = torch.randn(5, 2, 3)
    torch.testing.assert_close(affine.log_prob(actions), reference.log_prob(actions).sum((1, 2)))
    valid = torch.tensor([[True, False]]).expand(5, 2)
    torch.testing.assert_close(affine.log_prob(actions, valid), reference.log_prob(actions).sum(2)[:, 0])
    torch.testing.assert_close(affine.entropy(BatchNoise(5, "cpu")), reference.entropy().sum((1, 2)))
    sample, log_prob = affine.sample_with_log_prob(BatchNoise(5, "cpu"))
    torch.testing.assert_close(log_prob, affine.log_prob(sample))
