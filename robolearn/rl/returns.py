"""Returns and advantages over rollouts of L steps in N environments.

An episode ends in two ways, and only one of them ends the value:

    step         t      t+1    t+2          t+3
    reward       r_t    r_t+1  r_t+2        r_t+3
    ended by                   truncated
    successor    s_t+1  s_t+2  s' (true)    s_t+4      <- the episode of t+3 began at another s_t+3

`next_values` holds the value of each step's true successor, so nothing here ever looks at the following row's value.
"""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_sum(x: Tensor, decay: Tensor) -> Tensor:
    """Return y of y_t = x_t + decay_t * y_{t+1}, with y_L = 0; (L, ...).

    Args:
        x, decay: (L, ...); a decay of zero cuts the sum after its step.

    Solved by doubling (Hillis and Steele 1986): log2(L) vector operations instead of L, which counts on a GPU and for
    the few environments of a CPU alike.
    """
    length = len(x)
    # Two copies of each take turns, for a round may not read what it has written; zeros stand beyond the end.
    y, d, y_next, d_next = x.new_zeros(4, 2 * length, *x.shape[1:])
    y[:length], d[:length] = x, decay
    reach = 1
    while reach < length:
        torch.addcmul(y[:length], d[:length], y[reach : reach + length], out=y_next[:length])
        torch.mul(d[:length], d[reach : reach + length], out=d_next[:length])
        y, y_next, d, d_next = y_next, y, d_next, d
        reach *= 2
    return y[:length]


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    discounts: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gae_lambda: float,
) -> Tensor:
    """Return generalised advantage estimates (Schulman et al. 2016), (L, N).

    Args:
        rewards: (L, N).
        values: (L, N), V of the observation before each step.
        next_values: (L, N), V of the true successor; its value is ignored where `terminated`.
        discounts: (L, N), gamma to the power of the control steps that the (macro-)step took.
        terminated: (L, N) bool, the value beyond is zero.
        truncated: (L, N) bool, the episode was cut; the value beyond counts, later rewards belong to another episode.
    """
    beyond = torch.where(terminated, 0.0, next_values)
    delta = rewards + discounts * beyond - values  # delta_t = r_t + gamma^k V(s_t+1) - V(s_t)
    # A_t = delta_t + gamma^k lambda A_t+1, cut where an episode ended
    return discounted_sum(delta, gae_lambda * discounts * ~(terminated | truncated))
