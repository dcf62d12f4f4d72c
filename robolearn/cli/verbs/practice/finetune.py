"""`robolearn finetune`: improve a policy by practice."""

from __future__ import annotations

from dataclasses import replace

from robolearn.configuration.finetune import FinetuneCommand
from robolearn.errors import hint

CONFIG = FinetuneCommand


def run(config: FinetuneCommand) -> int:
    from robolearn.rl.finetune import finetune

    again = hint("finetune", "--config", f"{config.output}/config.yaml", "--resume")
    result = finetune(replace(config, resume=False), config.output, resume=config.resume, resume_hint=again)
    if result.note:
        print(result.note)
    if result.kept_start:
        print(f"not fine-tuned: {result.policy} is the policy that it started from, {config.policy}")
        return 0
    if result.start:
        before, after = result.start["eval_success"], result.best["eval_success"]
        print(f"success on held-out seeds {before:.0%} -> {after:.0%} after {result.env_steps} steps of practice")
    if result.test:
        print(f"on {config.test_episodes} fresh seeds, {result.test}")
    print(f"fine-tuned policy: {result.policy}")
    print(f"next: {hint('eval', result.policy)}")
    return 0
