"""Slot attention: slots compete for the features of an image (Locatello et al. 2020, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ATTENTION_OFFSET = 1e-8
"""Added to attention before it is normalised over the features, so that no slot divides by zero [epsilon]."""


class SlotUpdates(nn.Module):
    """Iterations in which slots attend to features, and are updated by a GRU and an MLP.

    Args:
        latent_dim: size D of features and slots.
        mlp_hidden: width of the hidden layer of the MLP.
        iterations: the number of updates.
    """

    def __init__(self, latent_dim: int, mlp_hidden: int, iterations: int) -> None:
        super().__init__()
        D = latent_dim
        self.iterations = iterations
        self.loc = nn.Parameter(torch.empty(1, 1, D))
        self.log_scale = nn.Parameter(torch.empty(1, 1, D))
        for parameter in (self.loc, self.log_scale):
            nn.init.xavier_uniform_(parameter)
        self.norm_features, self.norm_slots = nn.LayerNorm(D), nn.LayerNorm(D)
        self.queries, self.keys, self.values = (nn.Linear(D, D, bias=False) for _ in range(3))
        self.gru = nn.GRUCell(D, D)
        self.mlp = nn.Sequential(
            nn.LayerNorm(D), nn.Linear(D, mlp_hidden), nn.ReLU(inplace=True), nn.Linear(mlp_hidden, D)
        )

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        """Computes the slots of images.

        Args:
            features: float (B, N, D).
            noise: float (B, K, D), standard normal: the slots start as samples loc + exp(log_scale) · noise.

        Returns:
            float (B, K, D), in the order of `noise`.
        """
        features = self.norm_features(features)
        keys, values = self.keys(features), self.values(features)
        slots = self.loc + self.log_scale.exp() * noise
        for _ in range(self.iterations):
            slots = self.step(slots, keys, values)
        return slots

    def step(self, slots: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Updates slots (B, K, D) by the mean of the values (B, N, D) that each attends to.

        The softmax is over the slots, which therefore compete; the weights of each slot are then normalised.
        """
        B, K, D = slots.shape
        queries = self.queries(self.norm_slots(slots)) * D**-0.5
        attention = torch.einsum("bkd,bnd->bkn", queries, keys).softmax(dim=1) + ATTENTION_OFFSET
        updates = attention / attention.sum(dim=2, keepdim=True) @ values
        slots = self.gru(updates.reshape(B * K, D), slots.reshape(B * K, D)).view(B, K, D)
        updated: Tensor = slots + self.mlp(slots)
        return updated
