"""`robolearn rl`: train a controller from scratch."""

from __future__ import annotations

from dataclasses import replace

from robolearn.configuration.rl import RLCommand
from robolearn.errors import hint

CONFIG = RLCommand


def run(config: RLCommand) -> int:
    from robolearn.rl.from_scratch import train_rl

    resolved = replace(config, output=config.run_dir, resume=False)
    again = hint("rl", "--config", f"{resolved.output}/config.yaml", "--resume")
    result = train_rl(resolved, resume=config.resume, resume_hint=again)
    if result.metrics:
        print(f"mean return {result.metrics['eval_return']:.1f} after {result.env_steps} steps")
    if result.note:
        print(result.note)
        print(f"not trained: the policy in {result.run_dir} is no better than its random start; to go on: {again}")
    else:
        print(f"trained policy: {result.policy}")
        print(f"next: {hint('eval', result.policy)}    {hint('plot', 'curves', result.run_dir)}")
    return 0
