"""ACT: the style variable carries what the features do not say, its divergence is the textbook's, padding is unseen."""

from __future__ import annotations

import torch
from torch.distributions import Normal, kl_divergence

from robolearn.configuration.parts.policy import ACTHeadConfig
from robolearn.policies.heads.act import ACTHead
from robolearn.policies.noise import BatchNoise


def make_head(**config) -> ACTHead:
    torch.manual_seed(0)
    small = {"width": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 2, "latent_size": 4, "dropout": 0.0}
    return ACTHead(ACTHeadConfig(**small | config), feature_size=3, pred_steps=5, action_size=2)


def test_loss_is_l1_plus_weighted_divergence() -> None:
    head = make_head(kl_weight=3.0)
    features, actions, valid = torch.randn(6, 3), torch.rand(6, 5, 2), torch.ones(6, 5, dtype=torch.bool)
    torch.manual_seed(1)
    losses, metrics = head.loss(features, actions, valid)
    mean, log_variance = head._style(features, actions, valid)
    torch.manual_seed(1)
    latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
    l1 = (head._decode(features, latent) - actions).abs().mean((1, 2))
    kl = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(losses, l1 + 3 * kl)
    torch.testing.assert_close(metrics["kl"], kl.mean())


def test_style_tells_two_ways_apart() -> None:
    """One observation, two demonstrated ways: sampled styles reach both, the mean style makes one chunk."""
    head = make_head(kl_weight=0.003)
    sign = torch.randint(0, 2, (256, 1, 1)).float() * 2 - 1
    actions, features = 0.7 * sign.expand(-1, 5, 2), torch.zeros(256, 3)
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-3)
    for _ in range(120):
        loss = head.loss(features, actions, torch.ones(256, 5, dtype=torch.bool))[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        noise = BatchNoise(400, "cpu", torch.Generator().manual_seed(0))
        chunks = head.act(torch.zeros(400, 3), deterministic=False, noise=noise)
        repeated = [head.act(torch.zeros(2, 3), deterministic=True, noise=noise) for _ in range(2)]
    assert 0.2 < (chunks.mean((1, 2)) > 0).float().mean() < 0.8
    assert (chunks.abs() - 0.7).abs().median() < 0.1
    assert torch.equal(*repeated)


def test_padding_changes_nothing_even_when_it_is_not_a_number() -> None:
    head = make_head()
    features, valid = torch.randn(4, 3), torch.arange(5).expand(4, 5) < 3
    actions = torch.rand(4, 5, 2)
    losses = []
    for targets in (actions, actions.masked_fill(~valid.unsqueeze(-1), torch.nan)):
        torch.manual_seed(0)
        losses.append(head.loss(features, targets, valid)[0])
    assert torch.equal(*losses)
    losses[1].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_published_size() -> None:
    with torch.device("meta"):
        head = ACTHead(ACTHeadConfig(), feature_size=512, pred_steps=100, action_size=14)
    assert 40e6 < sum(p.numel() for p in head.parameters()) < 80e6
