"""`robolearn dagger`: correct a policy with rounds of labelled roll-outs."""

from __future__ import annotations

from robolearn.configuration.dagger import DaggerConfig

CONFIG = DaggerConfig


def run(config: DaggerConfig) -> int:
    import json
    from pathlib import Path

    from robolearn.imitation.dagger import dagger

    output = Path(config.output)
    policy = dagger(config, output, resume_hint=f"robolearn dagger --config {output / 'config.yaml'}")
    for path in sorted(output.glob("rounds/*/report.json")):
        report = json.loads(path.read_text())
        print(
            f"round {report['round']}: {report['successes']}/{report['episodes']} episodes succeeded, "
            f"{report['expert_steps']}/{report['steps']} steps by the expert, "
            f"mean disagreement {report['mean_disagreement']:.3f}"
        )
    print(f"corrected policy: {policy}")
    print(f"next: robolearn eval {policy}    robolearn finetune --policy {policy}")
    return 0
