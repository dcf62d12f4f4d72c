"""`robolearn plot`: learning curves of runs (`robolearn plot runs/*` will do) and action densities of policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robolearn.configuration.evaluation import CriticPlotConfig, CurvesConfig, DensityConfig


def run_curves(config: CurvesConfig) -> int:
    from robolearn.evaluation.curves import plot_curves

    path, table = plot_curves(config)
    width = max(len(row["name"]) for row in table)
    print(f"{'':<{width}}  runs  final mean   interquartile mean [95%]")
    for row in table:
        interval = f" [{row['low']:.4g}, {row['high']:.4g}]" if row["runs"] > 1 else ""
        print(f"{row['name']:<{width}}  {row['runs']:>4}  {row['mean']:>10.4g}   {row['iqm']:.4g}{interval}")
    print(f"wrote {path}")
    return 0


def run_density(config: DensityConfig) -> int:
    from robolearn.evaluation.density import plot_density

    print(f"wrote {plot_density(config)}")
    return 0


def run_critic(config: CriticPlotConfig) -> int:
    from robolearn.evaluation.critic_plot import KINDS, plot_critic

    path, errors = plot_critic(config)
    for kind, error in errors.items():
        print(f"{KINDS[kind]}: predicted minus realised return {error:+.3f}")
    print(f"wrote {path}")
    return 0


VERBS: dict[str, tuple[type, Callable[[Any], int], str]] = {
    "curves": (CurvesConfig, run_curves, "learning curves, runs of several seeds as one mean with its interval"),
    "critic": (CriticPlotConfig, run_critic, "what an off-policy run's critics promised against what came of it"),
    "density": (DensityConfig, run_density, "a policy's action density at recorded states"),
}
DEFAULT = "curves"
