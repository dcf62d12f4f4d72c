"""Diffusion head (Diffusion Policy, Chi et al. 2023): samplers DDPM, DDIM and DPM-Solver++.

Noise schedules and the samplers' time steps are those of `diffusers`' schedulers, where those steps divide the levels
evenly. Their updates are all linear in the noisy chunk x and the predicted clean chunk c,

    x_{k+1} = a_k x_k + b_k c_k + b'_k c_{k-1} + std_k * noise,

so the coefficients are computed once, and the steps' densities are at hand for PPO.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from robolearn.configuration.parts.policy import DiffusionHeadConfig
from robolearn.errors import ConfigError, PolicyError
from robolearn.policies.heads.chain import ChainHead
from robolearn.policies.heads.head import mean_over_steps

MAX_SIGNAL = 0.2
"""Share of the chunk at the noisiest level. Chains begin with none of it, so that samples of wide data come out too
near to zero, the more so the larger it is (100 linear levels leave 0.6)."""


@dataclass(frozen=True, kw_only=True)
class ChainCoefficients:
    """One array (S,) per coefficient of the update above."""

    timesteps: np.ndarray
    x: np.ndarray
    clean: np.ndarray
    previous_clean: np.ndarray
    std: np.ndarray


class DiffusionHead(ChainHead):
    """Denoises a chunk of Gaussian noise in `config.inference_steps` steps."""

    signal: Tensor
    noise_level: Tensor

    def __init__(self, config: DiffusionHeadConfig, *, feature_size: int, pred_steps: int, action_size: int) -> None:
        sizes = {"feature_size": feature_size, "pred_steps": pred_steps, "action_size": action_size}
        super().__init__(config.network, early_steps=config.early_steps, **sizes)
        self.config, self.has_densities = config, config.solver != "dpm"
        alphas, timesteps = cumulative_alphas(config), chain_timesteps(config)
        coefficients = chain_coefficients(alphas, timesteps, config)
        self.stds = tuple(coefficients.std.tolist())
        self.register_buffer("signal", torch.tensor(np.sqrt(alphas), dtype=torch.float32), persistent=False)
        self.register_buffer("noise_level", torch.tensor(np.sqrt(1 - alphas), dtype=torch.float32), persistent=False)
        self.register_buffer("times", torch.tensor(timesteps), persistent=False)
        self._table = [
            tuple(row)
            for row in np.stack([coefficients.x, coefficients.clean, coefficients.previous_clean], 1).tolist()
        ]
        self._clean_table = self._clean_coefficients(alphas[timesteps])

    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        clean = torch.where(valid.unsqueeze(-1), actions, 0.0)
        time = torch.randint(self.config.train_steps, (len(clean),), device=clean.device)
        noise = torch.randn_like(clean)
        signal, level = (table[time].view(-1, 1, 1) for table in (self.signal, self.noise_level))
        noisy = signal * clean + level * noise
        target = {"epsilon": noise, "sample": clean, "v_prediction": signal * noise - level * clean}
        predicted = self._predict(noisy, time, time > self.times[self.early_steps], features)
        squared = (predicted - target[self.config.prediction]).square().mean(-1)
        losses = mean_over_steps(squared, valid)
        return losses, {"denoising_error": losses.mean().detach()}

    def _means(self, x: Tensor, k: int, conditions: Tensor, memory: dict[str, Tensor]) -> Tensor:
        of_x, of_output = self._clean_table[k]
        clean = self._clip(of_x * x + of_output * self._network(k)(x, conditions[k]))
        a, b, b_previous = self._table[k]
        mean = a * x + b * clean
        if b_previous:
            mean = mean + b_previous * memory["clean"]
        memory["clean"] = clean
        return mean

    def _transition_mean(self, features: Tensor, x: Tensor, step: Tensor) -> Tensor:
        if not self.has_densities:
            raise PolicyError(
                "the dpm solver's steps depend on two earlier states and have no density each; use solver ddpm or ddim"
            )
        of_x, of_output = torch.tensor(self._clean_table, device=x.device)[step].view(-1, 2, 1, 1).unbind(1)
        output = self.network(x, self.network.condition(self.times[step], features))
        a, b, _ = torch.tensor(self._table, device=x.device)[step].view(-1, 3, 1, 1).unbind(1)
        clean = of_x * x + of_output * output
        # Gradients pass the clip as if it were not there: at the noisy end of the chain nearly all predictions are
        # clipped, and the steps there could not be trained at all.
        return a * x + b * (clean + (self._clip(clean) - clean).detach())

    def _clip(self, clean: Tensor) -> Tensor:
        return clean.clamp(-self.config.clip, self.config.clip) if self.config.clip else clean

    def _clean_coefficients(self, alphas: np.ndarray) -> list[tuple[float, float]]:
        """Return (p, q) per step, where clean = p * x + q * network output."""
        signal, level = np.sqrt(alphas), np.sqrt(1 - alphas)
        pairs = {
            "epsilon": (1 / signal, -level / signal),
            "sample": (np.zeros_like(signal), np.ones_like(signal)),
            "v_prediction": (signal, -level),
        }
        return list(zip(*(column.tolist() for column in pairs[self.config.prediction])))


def cumulative_alphas(config: DiffusionHeadConfig) -> np.ndarray:
    """Return the cumulative products of alpha (train_steps,), as `diffusers` has them.

    Raises ConfigError where the noisiest level leaves too much of the chunk.
    """
    with torch.device("cpu"):
        scheduler = DDIMScheduler(num_train_timesteps=config.train_steps, beta_schedule=config.schedule)
    alphas = scheduler.alphas_cumprod.double().numpy()
    if (left := float(np.sqrt(alphas[-1]))) > MAX_SIGNAL:
        raise ConfigError(
            f"the noisiest of {config.train_steps} levels of schedule {config.schedule} leaves {left:.0%} of the chunk "
            "and chains begin with none of it, so that samples would be biased; use schedule squaredcos_cap_v2, or "
            "train_steps 1000"
        )
    return alphas


def chain_timesteps(config: DiffusionHeadConfig) -> np.ndarray:
    """Return the chain's time steps (S,), noisiest first.

    Where T / S is a whole number they are those of `diffusers` with "leading" spacing for predicted noise, which says
    nothing about the chunk where noise drowns it, so that such chains start a stride below the top; and with "trailing"
    spacing otherwise. There a stride is rounded down before it is multiplied (60 of 100 steps would start at level 59,
    with half of the chunk still to be seen), or the rounding adds a step; here every step is rounded for itself.
    """
    T, S = config.train_steps, config.inference_steps
    if config.prediction != "epsilon":
        steps = np.arange(1, S + 1) * T // S - 1
    elif config.solver == "dpm":
        steps = np.arange(1, S + 1) * T // (S + 1)
    else:
        steps = np.arange(S) * T // S
    return steps[::-1].astype(np.int64)


def chain_coefficients(alphas: np.ndarray, timesteps: np.ndarray, config: DiffusionHeadConfig) -> ChainCoefficients:
    """Return the coefficients of the sampler's update at every step; after the last nothing is left but the chunk."""
    now, after = alphas[timesteps], np.append(alphas[timesteps[1:]], 1.0)
    if config.solver == "dpm":
        return _dpm_coefficients(now, after, timesteps)
    # DDPM's posterior is DDIM's with eta 1 (Song et al. 2021, eq. 16).
    eta = 1.0 if config.solver == "ddpm" else config.eta
    variance = eta**2 * (1 - after) / (1 - now) * (1 - now / after)
    of_noise = np.sqrt(np.maximum(1 - after - variance, 0.0))
    return ChainCoefficients(
        timesteps=timesteps,
        x=of_noise / np.sqrt(1 - now),
        clean=np.sqrt(after) - of_noise * np.sqrt(now / (1 - now)),
        previous_clean=np.zeros_like(now),
        std=np.sqrt(variance),
    )


def _dpm_coefficients(now: np.ndarray, after: np.ndarray, timesteps: np.ndarray) -> ChainCoefficients:
    """Return those of DPM-Solver++(2M), midpoint (Lu et al. 2022, algorithm 2); first and last step of first order."""
    with np.errstate(divide="ignore"):
        half_log_snr = 0.5 * np.log(np.append(now, 1.0) / np.append(1 - now, 0.0))
    h = np.diff(half_log_snr)
    first_order = -np.sqrt(after) * np.expm1(-h)
    ratio = np.zeros_like(now)
    ratio[1:-1] = 0.5 * h[1:-1] / h[:-2]
    return ChainCoefficients(
        timesteps=timesteps,
        x=np.sqrt((1 - after) / (1 - now)),
        clean=first_order * (1 + ratio),
        previous_clean=-first_order * ratio,
        std=np.zeros_like(now),
    )
