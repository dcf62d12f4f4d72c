"""One map of the seeds of episodes, so that nothing is trained or tuned on what is reported.

    seeds                 episodes                              taken by
    0 to 9,999            demonstrations                        record; RL's evaluations, for RL sees no demonstrations
    10,000 to 19,999      tuning                                rollouts during train; practice of finetune, whose last
                                                                ones are held out for its own evaluations
    20,000 to 99,999      reports                               eval, demo and benchmarks; nothing else ever
    100,000 to 999,999    DAgger's rounds, one after the other  dagger
    (s + 1) million on    training from scratch with seed s     rl; a million for each run

An episode's seed says how it begins. Seeds of weights, batches and noise (`--seed` of train, finetune and rl) draw no
episodes, and any number will do.
"""

from __future__ import annotations

RECORD_SEED = 0
"""First seed of demonstrations."""
RL_EVAL_SEED = 0
"""First seed of the evaluations during training from scratch."""
ROLLOUT_SEED = 10_000
"""First seed of rollouts during cloning: what is tuned on them is not what results are reported on."""
PRACTICE_SEED = 10_000
"""First seed of the episodes that fine-tuning practises on."""
PRACTICE_SEEDS = 10_000
"""Number of the episodes that fine-tuning practises on."""
REPORT_SEED = 20_000
"""First seed of reports: nothing is recorded, trained or tuned from here to DAGGER_SEED."""
DAGGER_SEED = 100_000
"""First seed of DAgger's rounds."""
SEEDS_PER_RUN = 1_000_000
"""Seeds of one training from scratch."""

RECORDING = range(RECORD_SEED, ROLLOUT_SEED)
TUNING = range(ROLLOUT_SEED, REPORT_SEED)
REPORTING = range(REPORT_SEED, DAGGER_SEED)
CORRECTING = range(DAGGER_SEED, SEEDS_PER_RUN)


def run_seeds(seed: int) -> range:
    """Return the seeds of the training episodes of a run from scratch with `seed` 0, 1, ..."""
    return range((seed + 1) * SEEDS_PER_RUN, (seed + 2) * SEEDS_PER_RUN)
