"""The projector head and the cosine softmax of t-ReX (Sariyildiz et al., "No reason for no supervision", ICLR 2023), from its description.

Pooled features are L2-normalised, go through hidden layers (linear, batch norm, GELU) and a bottleneck without bias. The logits are cosines to
one learned direction per class, over a temperature. For transfer the head is dropped.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional


class Projector(nn.Module):
    """Pooled features float [B, D] to logits [B, K].

    Args:
        num_features: D.
        num_classes: K.
        layers: hidden layers.
        width: of each hidden layer.
        bottleneck: width of the bottleneck.
        temperature: of the softmax.
    """

    def __init__(self, num_features: int, num_classes: int, layers: int, width: int, bottleneck: int, temperature: float) -> None:
        super().__init__()
        widths = [num_features] + [width] * layers
        hidden = [nn.Sequential(nn.Linear(one, other), nn.BatchNorm1d(other), nn.GELU()) for one, other in pairwise(widths)]
        self.hidden = nn.Sequential(*hidden, nn.Linear(width, bottleneck, bias=False))
        self.directions = nn.Parameter(torch.empty(num_classes, bottleneck))
        self.temperature = temperature
        nn.init.normal_(self.directions, std=0.01)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Cosines over the temperature, in [-1 / temperature, 1 / temperature]."""
        projected = functional.normalize(self.hidden(functional.normalize(features, dim=1)), dim=1)
        return functional.linear(projected, functional.normalize(self.directions, dim=1)) / self.temperature
