"""The newest weights of a policy that is being learned, for a process that acts by it meanwhile.

folder/policy/               the policy as it was at first; of a corrected one with its base, which never changes
folder/newest.safetensors    the part that learns, as it is now; replaced as a whole
"""

from __future__ import annotations

import time
from hashlib import blake2s
from pathlib import Path

from safetensors.torch import load, save

from robolearn.errors import PolicyError
from robolearn.policies.folder import load_policy, save_policy
from robolearn.policies.policy import Policy
from robolearn.storage import write_bytes

POLICY, NEWEST = "policy", "newest.safetensors"
EVERY_S = 2.0
"""Seconds between two publications, at least."""
SHARE = 0.02
"""Of the learner's time that publishing may take: large policies are published less often."""


class Publisher:
    """The learner's side."""

    def __init__(self, policy: Policy, folder: Path) -> None:
        self.policy, self.folder = policy, folder
        self._due = 0.0

    def begin(self, *, again: bool) -> None:
        """Publish the policy as it is.

        Args:
            again: leave what is there already: a run that goes on has yet to come to its own newest policy.
        """
        if again and (self.folder / NEWEST).exists():
            return
        save_policy(self.policy, self.folder / POLICY)
        self.publish()

    def publish_when_due(self) -> None:
        """Publish the newest weights, where the last ones are old enough."""
        began = time.monotonic()
        if began >= self._due:
            self.publish()
            now = time.monotonic()
            self._due = now + max(EVERY_S, (now - began) / SHARE)

    def publish(self) -> None:
        """Publish the newest weights."""
        state = self.policy.learning_part.state_dict()
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        write_bytes(self.folder / NEWEST, save(weights))


class NewestPolicy:
    """The other side: the policy, which `take_up` brings up to date."""

    def __init__(self, folder: Path) -> None:
        """Raises PolicyError where nothing was published there."""
        self.folder, self.policy = folder, load_policy(folder / POLICY)
        self.fingerprint = ""
        """Of the weights that act."""
        self._stamp: tuple[int, int] | None = None
        self.take_up()

    def take_up(self) -> None:
        """Act by the newest weights from now on; costs a system call where they are those of before.

        Raises PolicyError where they are not for this policy.
        """
        path = self.folder / NEWEST
        found = path.stat()
        if (found.st_ino, found.st_mtime_ns) == self._stamp:
            return
        content = path.read_bytes()
        try:
            self.policy.learning_part.load_state_dict(load(content))
        except RuntimeError as error:
            raise PolicyError(f"{path} is not of the policy in {self.folder / POLICY}: {error}") from None
        self.fingerprint = blake2s(content, digest_size=8).hexdigest()
        self._stamp = (found.st_ino, found.st_mtime_ns)
