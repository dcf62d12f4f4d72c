"""GAE against a direct double sum, and its limits against closed forms."""

from __future__ import annotations

import torch
from hypothesis import given, settings, strategies as st

from robolearn.rl.returns import discounted_sum, gae


def direct_gae(rewards, values, next_values, discounts, terminated, truncated, lam):
    """The definition, term by term: A_t = sum_k (prod_{j<k} lam g_{t+j} [not ended]) delta_{t+k}."""
    L, N = rewards.shape
    advantages = torch.zeros(L, N, dtype=torch.float64)
    for n in range(N):
        for t in range(L):
            weight = 1.0
            for k in range(t, L):
                beyond = 0.0 if terminated[k, n] else discounts[k, n].item() * next_values[k, n].item()
                advantages[t, n] += weight * (rewards[k, n].item() + beyond - values[k, n].item())
                if terminated[k, n] or truncated[k, n]:
                    break
                weight *= lam * discounts[k, n].item()
    return advantages


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000), L=st.integers(1, 37), N=st.integers(1, 4), lam=st.sampled_from([0.0, 0.5, 0.95, 1.0])
)
def test_gae_equals_the_definition(seed: int, L: int, N: int, lam: float) -> None:
    g = torch.Generator().manual_seed(seed)
    rewards, values, next_values = (torch.randn(L, N, generator=g, dtype=torch.float64) for _ in range(3))
    discounts = 0.9 ** torch.randint(1, 5, (L, N), generator=g).double()
    terminated = torch.rand(L, N, generator=g) < 0.2
    truncated = (torch.rand(L, N, generator=g) < 0.2) & ~terminated
    next_values[terminated] = torch.nan  # the value beyond a terminal state must never be read
    ours = gae(rewards, values, next_values, discounts, terminated, truncated, lam)
    torch.testing.assert_close(ours, direct_gae(rewards, values, next_values, discounts, terminated, truncated, lam))


def test_rewards_after_an_end_do_not_leak_back() -> None:
    """Poisoned later episodes: everything before the boundary stays finite."""
    L = 20
    rewards, values = torch.ones(L, 2), torch.zeros(L, 2)
    rewards[10:] = 1e30
    terminated, truncated = torch.zeros(2, L, 2, dtype=torch.bool)
    terminated[9, 0], truncated[9, 1] = True, True
    args = rewards, values, torch.zeros(L, 2), torch.full((L, 2), 0.9), terminated, truncated
    advantages = gae(*args, 0.95)
    assert advantages[:10].max() < 10.0
    assert advantages[10:].min() > 1e20


def test_lambda_one_is_the_return_and_lambda_zero_the_td_error() -> None:
    rewards = torch.tensor([[1.0], [2.0], [3.0]])
    values, following = torch.tensor([[0.5], [0.25], [0.125]]), torch.tensor([[0.25], [0.125], [4.0]])
    no = torch.zeros(3, 1, dtype=torch.bool)
    g = torch.full((3, 1), 0.5)
    td = gae(rewards, values, following, g, no, no, 0.0)
    torch.testing.assert_close(td, rewards + 0.5 * following - values)
    returns = gae(rewards, values, following, g, no, no, 1.0) + values
    torch.testing.assert_close(returns, torch.tensor([[1 + 1 + 0.75 + 0.5], [2 + 1.5 + 1.0], [3 + 2.0]]))


def test_discounted_sum_leaves_its_arguments_alone() -> None:
    x, d = torch.ones(5, 1), torch.full((5, 1), 0.5)
    discounted_sum(x, d)
    assert (x == 1).all()
    assert (d == 0.5).all()
