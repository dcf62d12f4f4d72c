"""Transformer blocks against torch's own attention, causality by gradients, caches against the parallel pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robolearn.configuration.parts.policy import TransformerConfig
from robolearn.errors import ConfigError
from robolearn.policies.networks.transformer import Attention, KeyValueCache, ModulatedBlock, TransformerBlock
from robolearn.policies.transformer_backbone import TransformerBackbone


def test_attention_equals_torch_multihead_attention() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, memory = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])
    torch.testing.assert_close(ours(x, memory), theirs(x, memory, memory)[0])
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(ours(x, causal=True), theirs(x, x, x, attn_mask=future)[0])
    pairs = torch.tensor([[0, 0, 1, 1, 1]] * 2 + [[0, 0, 0, 0, 1]] * 2 + [[0] * 5], dtype=torch.bool)
    torch.testing.assert_close(ours(x, causal=True, together=2), theirs(x, x, x, attn_mask=pairs)[0])
    keep = torch.arange(5) < torch.tensor([[3], [5]])
    torch.testing.assert_close(ours(x, keep=keep), theirs(x, x, x, key_padding_mask=~keep)[0])
    one, kept = x[:, :1], torch.arange(7) < torch.tensor([[3], [7]])
    torch.testing.assert_close(ours(one, memory), theirs(one, memory, memory)[0])
    torch.testing.assert_close(ours(one, memory, keep=kept), theirs(one, memory, memory, key_padding_mask=~kept)[0])


@pytest.mark.parametrize("pieces", [(1, 1, 1, 1, 1, 1), (2, 3, 1)])
def test_cache_equals_the_parallel_pass(pieces: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    block, cache = TransformerBlock(8, 2), KeyValueCache()
    x = torch.randn(3, 6, 8)
    cached = torch.cat([block(part, causal=True, cache=cache) for part in x.split(pieces, dim=1)], 1)
    torch.testing.assert_close(cached, block(x, causal=True))


def test_modulated_block_starts_as_the_identity_and_listens_once_trained() -> None:
    block, x = ModulatedBlock(8, 2), torch.randn(2, 4, 8)
    condition = torch.randn(2, 8)
    assert torch.equal(block(x, block.modulation(condition)), x)
    nn.init.normal_(block.modulation.weight)
    first, second = (block(x, block.modulation(c)) for c in (condition, -condition))
    assert (first - second).abs().max() > 0.1


def test_backbone_is_causal_and_sees_all_of_the_past() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(width=16, num_layers=2, num_heads=2)
    backbone = TransformerBackbone(config, obs_steps=4, input_size=3).eval()
    assert backbone.output_size == 16
    window = torch.randn(1, 4, 3, requires_grad=True)
    features = backbone(window)
    assert features.shape == (1, 4, 16)
    for i in range(4):
        (grad,) = torch.autograd.grad(features[0, i].square().sum() + features[0, i, 0], window, retain_graph=True)
        assert (grad[0, : i + 1].abs().sum(-1) > 0).all()
        assert (grad[0, i + 1 :] == 0).all()


def test_backbone_tells_orders_apart() -> None:
    backbone = TransformerBackbone(TransformerConfig(width=16, num_layers=1, num_heads=2), obs_steps=3, input_size=2)
    window = torch.randn(1, 3, 2)
    swapped = window[:, [1, 0, 2]]
    assert (backbone.eval()(window)[:, -1] - backbone(swapped)[:, -1]).abs().max() > 1e-4


def test_a_width_that_does_not_split_into_heads_is_named() -> None:
    with pytest.raises(ConfigError, match="multiple of num_heads, received 10 and 3"):
        TransformerBackbone(TransformerConfig(width=10, num_heads=3), obs_steps=2, input_size=2)
