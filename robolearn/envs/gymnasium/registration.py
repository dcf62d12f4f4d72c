"""Our tasks as Gymnasium environments. Importing this module registers them:

    import robolearn.envs.gymnasium.registration
    gymnasium.make("robolearn/Lift-v0")

or, where only an id can be given, `gymnasium.make("robolearn.envs.gymnasium.registration:robolearn/Lift-v0")`.
Gymnasium has not looked for plug-ins by itself since 1.0.
"""

from __future__ import annotations

from gymnasium.envs import registration

from robolearn.tasks import registry

NAMESPACE = "robolearn"


def register() -> None:
    """Register every task, ours and other packages', once. Imports neither torch nor MuJoCo."""
    for name in registry.names():
        env_id = f"{NAMESPACE}/{name}-v0"
        if env_id not in registration.registry:
            registration.register(
                id=env_id,
                entry_point="robolearn.envs.gymnasium.exported:GymTask",
                vector_entry_point="robolearn.envs.gymnasium.exported:GymTaskVector",
                kwargs={"task": name},
            )


register()
