"""Diffusion: every sampler step against `diffusers`, a mixture recovered, the chain's densities against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from scipy import stats
from torch import Tensor, nn

from robolearn.configuration.parts.policy import (
    DenoisingMLPConfig,
    DenoisingTransformerConfig,
    DiffusionHeadConfig,
    FlowHeadConfig,
    MLPConfig,
    PolicyConfig,
    UNetConfig,
)
from robolearn.errors import ConfigError, PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.heads.chain import ChainHead
from robolearn.policies.heads.diffusion import DiffusionHead
from robolearn.policies.heads.flow import FlowHead
from robolearn.policies.noise import BatchNoise, FixedNoise, RowNoise
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec

UNET = UNetConfig(channels=(16, 32), num_groups=4, time_size=16)
TRANSFORMER = DenoisingTransformerConfig(width=16, num_layers=2, num_heads=2)
MLP = DenoisingMLPConfig(width=32, num_blocks=2)


def make(kind: str = "diffusion", *, pred_steps: int = 4, action_size: int = 2, seed: int = 0, **config) -> ChainHead:
    torch.manual_seed(seed)
    config.setdefault("network", UNET)
    sizes = {"feature_size": 3, "pred_steps": pred_steps, "action_size": action_size}
    if kind == "flow":
        return FlowHead(FlowHeadConfig(**config), **sizes).eval()
    return DiffusionHead(DiffusionHeadConfig(**config), **sizes).eval()


def noise(batch: int, seed: int = 0) -> BatchNoise:
    return BatchNoise(batch, "cpu", torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    ("solver", "steps", "eta"),
    [("ddpm", 100, 0.0), ("ddim", 10, 0.0), ("ddim", 10, 0.6), ("dpm", 10, 0.0)],
)
def test_every_step_equals_diffusers(prediction: str, solver: str, steps: int, eta: float) -> None:
    clip = 0.0 if solver == "dpm" else 1.0  # diffusers has no clipping for the multistep solver
    head = make(prediction=prediction, solver=solver, inference_steps=steps, eta=eta, clip=clip)
    assert isinstance(head, DiffusionHead)
    spacing = "leading" if prediction == "epsilon" else "trailing"
    common = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "prediction_type": prediction}
    if solver == "ddpm":
        scheduler = DDPMScheduler(**common, clip_sample=True, timestep_spacing=spacing)
    elif solver == "ddim":
        scheduler = DDIMScheduler(**common, clip_sample=True, timestep_spacing=spacing)
    else:
        scheduler = DPMSolverMultistepScheduler(**common, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    features = torch.randn(2, 3)
    chain = head.sample_chain(features, noise(2)).detach()
    start, *step_noise = replay_noise(head, 2)
    x = start
    for k, t in enumerate(scheduler.timesteps):
        with torch.no_grad():
            output = head.network(x, head.network.condition(torch.full((2,), float(t)), features))
        if solver == "ddim":
            z = step_noise.pop(0) if head.stds[k] > 0 else None
            x = scheduler.step(output, t, x, eta=eta, use_clipped_model_output=True, variance_noise=z).prev_sample
        elif solver == "ddpm":
            z = step_noise.pop(0) if head.stds[k] > 0 else torch.zeros_like(x)
            mean_only = scheduler.step(output, t, x, generator=torch.Generator().manual_seed(0)).prev_sample
            drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) if t > 0 else torch.zeros_like(x)
            std = head.stds[k]
            x = mean_only - std * drawn + std * z
        else:
            x = scheduler.step(output, t, x).prev_sample
        # In float32 the noisiest levels amplify rounding by 1 / sqrt(alpha).
        torch.testing.assert_close(chain[:, k + 1], x, rtol=2e-3, atol=2e-3)
        x = chain[:, k + 1]


class ExactDenoiser(nn.Module):
    """What a network would say that knows the data: N(MEAN, STD), each number for itself."""

    mean, std = 0.6, 0.1

    def __init__(self, head: DiffusionHead) -> None:
        super().__init__()
        self.signal, self.noise_level, self.prediction = head.signal, head.noise_level, head.config.prediction

    def condition(self, time: Tensor, features: Tensor) -> Tensor:
        return time.unsqueeze(-1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        a, b = (table.double()[condition.long()].unsqueeze(-1) for table in (self.signal, self.noise_level))
        clean = self.mean + a * self.std**2 / (a**2 * self.std**2 + b**2) * (x - a * self.mean)
        return (x - a * clean) / b if self.prediction == "epsilon" else clean


class QuantileNoise:
    """Every row a quantile of its own, so that means and deviations of samples have no error of sampling."""

    def __init__(self, rows: int) -> None:
        self.rows = torch.special.ndtri((torch.arange(rows, dtype=torch.float64) + 0.5) / rows)

    def normal(self, *shape: int) -> Tensor:
        return self.rows.view(-1, *[1] * len(shape)).expand(-1, *shape)

    def uniform(self, *shape: int) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize("solver", ["ddim", "dpm"])
@pytest.mark.parametrize("steps", [10, 29, 50, 60, 75, 100])
def test_any_number_of_steps_samples_a_known_gaussian(prediction: str, solver: str, steps: int) -> None:
    """`diffusers`' spacings miss its mean by 0.04 with 60 of 100 steps, or visit the noisiest level last with 29."""
    head = make(prediction=prediction, solver=solver, inference_steps=steps, pred_steps=1, action_size=1)
    assert isinstance(head, DiffusionHead)
    times = head.times.tolist()
    assert len(set(times)) == steps
    assert times == sorted(times, reverse=True)
    assert {times[0], times[-1]} <= set(range(100))
    head.network = ExactDenoiser(head)  # type: ignore[assignment]
    rows = 501
    samples = head.act(torch.zeros(rows, 3), deterministic=True, noise=QuantileNoise(rows))
    assert float(samples.mean()) == pytest.approx(ExactDenoiser.mean, abs=0.006)
    # Too few steps give too little spread, in inverse proportion.
    assert float(samples.std()) == pytest.approx(ExactDenoiser.std, abs=0.6 / steps + 0.005)


def replay_noise(head: ChainHead, batch: int) -> list[Tensor]:
    """The start and the noise of every noisy step, as `sample_chain` draws them from `noise(batch)`."""
    source = noise(batch)
    count = 1 + sum(std > 0 for std in head.stds)
    return [source.normal(head.pred_steps, head.action_size) for _ in range(count)]


MODES = torch.tensor([[-0.6, 0.4], [0.6, 0.4], [0.0, -0.6]])
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])
MODE_STD = 0.08


def mixture_samples(count: int, generator: torch.Generator) -> Tensor:
    """(count, 1, 2) from a mixture with known weights and modes."""
    which = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
    return (MODES[which] + MODE_STD * torch.randn(count, 2, generator=generator)).unsqueeze(1)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("diffusion", {"solver": "ddpm", "inference_steps": 100}),
        pytest.param(
            "diffusion",
            {"solver": "ddim", "inference_steps": 25, "prediction": "v_prediction"},
            marks=pytest.mark.slow,
        ),
        pytest.param("diffusion", {"solver": "dpm", "inference_steps": 30}, marks=pytest.mark.slow),
        pytest.param("flow", {"inference_steps": 25}, marks=pytest.mark.long),
        pytest.param(
            "flow", {"inference_steps": 12, "solver": "midpoint", "time_sampling": "beta"}, marks=pytest.mark.slow
        ),
    ],
    ids=["ddpm-epsilon", "ddim-v", "dpm-epsilon", "flow-euler", "flow-midpoint"],
)
def test_a_known_mixture_is_recovered(kind: str, config: dict) -> None:
    head = make(kind, pred_steps=1, network=DenoisingMLPConfig(width=64, num_blocks=2), **config)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(head.network.parameters(), lr=3e-3)
    steps = 1000
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    features, valid = torch.zeros(384, 3), torch.ones(384, 1, dtype=torch.bool)
    for _ in range(steps):
        loss = head.loss(features, mixture_samples(384, generator), valid)[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        samples = head.act(torch.zeros(4000, 3), deterministic=False, noise=noise(4000))[:, 0]
    nearest = torch.cdist(samples, MODES).argmin(-1)
    shares = torch.stack([(nearest == i).float().mean() for i in range(3)])
    torch.testing.assert_close(shares, WEIGHTS, atol=0.05, rtol=0)
    centres = torch.stack([samples[nearest == i].median(0).values for i in range(3)])
    torch.testing.assert_close(centres, MODES, atol=0.03, rtol=0)
    spread = torch.stack([(samples[nearest == i] - MODES[i]).abs().median() / 0.6745 for i in range(3)])
    torch.testing.assert_close(spread, torch.full((3,), MODE_STD), atol=0.035, rtol=0)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
@pytest.mark.parametrize("network", [UNET, TRANSFORMER, MLP])
def test_without_step_noise_the_chunk_is_a_function_of_its_start(kind: str, network) -> None:
    head = make(kind, network=network)
    features = torch.randn(2, 3)
    first, second = (head.act(features, deterministic=False, noise=noise(2, seed=3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, head.act(features, deterministic=False, noise=noise(2, seed=4)))


@pytest.mark.parametrize(("kind", "config"), [("diffusion", {"solver": "ddpm"}), ("diffusion", {}), ("flow", {})])
def test_there_is_no_mode_so_every_plan_is_a_draw(kind: str, config: dict) -> None:
    """One draw for all plans would repeat the same way of acting at every state, that of waiting too."""
    head, features, source = make(kind, **config), torch.randn(3, 3), noise(3, seed=1)
    first, second = (head.act(features, deterministic=True, noise=source) for _ in range(2))
    assert (first - second).abs().amax(dim=(1, 2)).min() > 0.01
    torch.testing.assert_close(first, head.act(features, deterministic=False, noise=noise(3, seed=1)), rtol=0, atol=0)


def test_without_a_source_of_noise_a_deterministic_plan_can_be_repeated() -> None:
    policy = build_policy(
        PolicyConfig(head=FlowHeadConfig(network=MLP), backbone=MLPConfig(hidden_sizes=(8,))),
        ObservationSpec({"state": ArraySpec(shape=(3,))}),
        ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), names=("x", "y")),
    ).eval()
    windows = {"state": torch.randn(3, policy.config.obs_steps, 3)}
    plans = policy.act(windows, deterministic=True)
    torch.manual_seed(123)
    alone = policy.act({"state": windows["state"][1:2]}, deterministic=True)
    torch.testing.assert_close(plans[1:2], alone, rtol=1e-4, atol=1e-5)
    assert FixedNoise(2, "cpu").normal(4, 2).abs().min() > 0


def test_a_row_draws_the_same_whoever_shares_its_batch() -> None:
    head = make(solver="ddpm", inference_steps=5)
    features = torch.randn(3, 3)
    generators = [[torch.Generator().manual_seed(i) for i in range(3)] for _ in range(2)]
    together = head.act(features, deterministic=False, noise=RowNoise(generators[0], "cpu"))
    alone = head.act(features[2:], deterministic=False, noise=RowNoise(generators[1][2:], "cpu"))
    torch.testing.assert_close(together[2:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config"),
    [("diffusion", {"solver": "ddpm"}), ("diffusion", {}), ("flow", {}), ("flow", {"solver": "midpoint"})],
)
def test_chain_log_prob_is_that_of_the_sampled_noise(kind: str, config: dict) -> None:
    """The states differ from the means by std * noise, so scipy's normal density of that noise is the answer."""
    head = make(kind, inference_steps=6, **config)
    features = torch.randn(5, 3)
    with torch.no_grad():
        chain = head.sample_chain(features, noise(5), min_std=0.1)
        received = head.chain_log_prob(features, chain, min_std=0.1)
        later = head.chain_log_prob(features, chain[:, 4:], min_std=0.1, first=4)
    assert chain.shape == (5, 7, 4, 2)
    source = noise(5)
    source.normal(4, 2)
    stds = np.maximum(head.stds, 0.1)
    expected = [stats.norm.logpdf(source.normal(4, 2).numpy()) - np.log(std) for std in stds]
    np.testing.assert_allclose(received, np.stack(expected, 1), atol=2e-3)
    torch.testing.assert_close(later, received[:, 4:], rtol=1e-4, atol=1e-3)


def test_chain_gradients_reach_the_network_at_every_step() -> None:
    head = make(inference_steps=4)
    features = torch.randn(3, 3)
    chain = head.sample_chain(features, noise(3), min_std=0.1).detach()
    for k in range(4):
        head.zero_grad()
        head.chain_log_prob(features, chain, min_std=0.1)[:, k].sum().backward()
        total = sum(float(p.grad.abs().sum()) for p in head.parameters() if p.grad is not None)
        assert total > 1e-3


def test_chains_without_densities_say_so() -> None:
    features = torch.randn(2, 3)
    flow = make("flow")
    chain = flow.sample_chain(features, noise(2)).detach()
    with pytest.raises(PolicyError, match="give min_std > 0"):
        flow.chain_log_prob(features, chain)
    multistep = make(solver="dpm")
    with pytest.raises(PolicyError, match="use solver ddpm or ddim"):
        multistep.chain_log_prob(features, chain, min_std=0.1)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
@pytest.mark.parametrize("network", [UNET, TRANSFORMER, MLP])
def test_padding_changes_nothing_even_when_it_is_not_a_number(kind: str, network) -> None:
    head = make(kind, network=network).train()
    features, valid = torch.randn(4, 3), torch.tensor([True, True, True, False]).expand(4, 4)
    actions = torch.rand(4, 4, 2)
    poisoned = actions.masked_fill(~valid.unsqueeze(-1), torch.nan)
    losses = []
    for targets in (actions, poisoned):
        torch.manual_seed(0)
        losses.append(head.loss(features, targets, valid)[0])
    assert torch.equal(*losses)
    losses[1].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_unet_takes_any_chunk_length(steps: int) -> None:
    head = make(pred_steps=steps, action_size=3)
    assert head.act(torch.randn(2, 3), deterministic=True, noise=noise(2)).shape == (2, steps, 3)


def test_published_unet_has_the_published_size() -> None:
    """256-512-1024 on a 7-dimensional action has about 65 million weights."""
    with torch.device("meta"):
        head = make(network=UNetConfig(), pred_steps=16, action_size=7)
    count = sum(p.numel() for p in head.parameters())
    assert 55e6 < count < 75e6


def test_bad_configurations_are_named() -> None:
    with pytest.raises(ConfigError, match=r"inference_steps must lie between 1 and train_steps \(100\), received 200"):
        DiffusionHeadConfig(inference_steps=200)
    with pytest.raises(ConfigError, match="with inference_steps 1 use prediction sample"):
        DiffusionHeadConfig(inference_steps=1)
    with pytest.raises(ConfigError, match="the noisiest of 100 levels of schedule linear leaves 60% of the chunk"):
        make(schedule="linear")
    make(schedule="linear", train_steps=1000)
    with pytest.raises(ConfigError, match="would cut off actions that mean_std normalisation puts beyond it"):
        PolicyConfig(head=DiffusionHeadConfig(), action_normalisation="mean_std")
    with pytest.raises(ConfigError, match=r"multiples of num_groups \(8\).*received channels \[12\]"):
        make(network=UNetConfig(channels=(12,)))
