"""Networks between the encoders and the action head.

A backbone is built as `Backbone(config, obs_steps=To, input_size=E)`, has `output_size` (D), and maps (B, To, E) to
(B, To, D) where it is causal over time (step i sees steps 0..i) or to (B, D) where it sees the window as a whole.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from robolearn.configuration.parts.policy import LSTMConfig, MLPConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class MLPBackbone(nn.Module):
    """Fully connected layers on the flattened window: (B, To, E) -> (B, D)."""

    def __init__(self, config: MLPConfig, *, obs_steps: int, input_size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        sizes = (obs_steps * input_size, *config.hidden_sizes)
        for inputs, outputs in pairwise(sizes):
            layers.append(nn.Linear(inputs, outputs))
            layers += [nn.LayerNorm(outputs)] if config.layer_norm else []
            layers.append(ACTIVATIONS[config.activation]())
            layers += [nn.Dropout(config.dropout)] if config.dropout else []
        self.layers = nn.Sequential(*layers)
        self.output_size = sizes[-1]

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features.flatten(1))


class LSTMBackbone(nn.Module):
    """Stacked LSTM over the window, from a zero state: (B, To, E) -> (B, To, D), causal.

    The window is the memory: at run time the network is run over the last To observations again, as in training, and
    not carried on for a whole episode, which it never saw.
    """

    def __init__(self, config: LSTMConfig, *, obs_steps: int, input_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, config.hidden_size, config.num_layers, batch_first=True)
        self.output_size = config.hidden_size

    def forward(self, features: Tensor) -> Tensor:
        return self.lstm(features)[0]
