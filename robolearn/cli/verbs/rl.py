"""`robolearn rl`: train a controller from scratch."""

from __future__ import annotations

from dataclasses import replace

from robolearn.configuration.rl import RLCommand

CONFIG = RLCommand


def run(config: RLCommand) -> int:
    from robolearn.rl.from_scratch import train_rl

    resolved = replace(config, output=config.run_dir, resume=False)
    again = f"robolearn rl --config {resolved.output}/config.yaml --resume"
    result = train_rl(resolved, resume=config.resume, resume_hint=again)
    if result.metrics:
        print(f"mean return {result.metrics['eval_return']:.1f} after {result.env_steps} steps")
    if result.note:
        print(result.note)
        print(f"not trained: the policy in {result.run_dir} is no better than its random start; to go on: {again}")
    elif result.policy is None:
        print(f"trained: {result.run_dir}; its action values are in the checkpoint, which eval does not load")
    else:
        print(f"trained policy: {result.policy}")
        print(f"next: robolearn eval {result.policy}    robolearn plot curves {result.run_dir}")
    return 0
