"""The activation unit for one request, candidates innermost.

With W = [Wq Wk Wd Wp] its first layer is

    Wq q + Wk k + Wd (q - k) + Wp (q ⊙ k)  =  (Wp·diag(k) + Wq + Wd) q  +  (Wk - Wd) k

so behaviour l gets one matrix A_l = Wp·diag(k_l) + Wq + Wd, and the layer for all behaviours and candidates is a single
product [h·L, D] @ [D, N]. Units stand before behaviours in it, so that the next layer is a single product as well,
[g, h] @ [h, L·N]. A first layer of low rank is U times that product with its inner factor in the place of W: A_l is
[r, D], and [h, r] @ [r, L·N] follows.

Letters: L behaviours, N candidates, D width of a behaviour, h, g units of the activation unit.
"""

import math

import torch
from torch import Tensor, nn

from export.columns import ColumnLinear, folded
from models.networks.attention import ActivationUnit

BLOCK = 400
"""Rows of the product computed at once. 400 x 500 floats are 0.8 MB: what one layer writes, the next reads from the
second-level cache. Of 500 candidates and 50 behaviours, 80-40: 7.5 ms in 10 blocks, 9.1 ms in one."""
MOST_BLOCKS = 25
"""Each block costs a dozen nodes, about 30 us."""


class ColumnAttention(nn.Module):
    """How much each behaviour weighs for each candidate."""

    for_q: Tensor
    for_k: Tensor
    for_product: Tensor
    first_bias: Tensor

    def __init__(self, unit: ActivationUnit, longest: int) -> None:
        """`longest`: behaviours of the longest history; it only decides into how many blocks the work is cut."""
        super().__init__()
        layers = [unit.first, unit.second, unit.out]
        weights, biases, activations = folded(layers, [unit.first_activation, unit.second_activation])
        for_q, for_k, for_product = (activations[0].scaled_rows(w.detach()) for w in unit.split())
        first_bias = biases[0] if biases[0] is not None else for_k.new_zeros(len(for_k))
        held = {
            "for_q": for_q.unsqueeze(1),  # [h, 1, D]
            "for_k": for_k,
            "for_product": for_product.unsqueeze(1),
            "first_bias": first_bias,
        }
        for name, tensor in held.items():
            self.register_buffer(name, tensor.clone())
        self.activations = nn.ModuleList(activations)
        self.layers = nn.ModuleList(map(ColumnLinear, weights[1:], biases[1:]))
        self.units, self.mode, self.width = len(for_k), unit.mode, unit.width
        widest = max(self.units, unit.first_activation.units)
        self.blocks = min(MOST_BLOCKS, longest, math.ceil(longest * widest / BLOCK))

    def forward(self, q: Tensor, k: Tensor, filled: Tensor) -> Tensor:
        """Weights [L, N] of candidates q [D, N] over behaviours k [L, D]; 0 where `filled` bool[L] is False.

        L must be a multiple of `blocks`: see `padded`.
        """
        length, width = k.shape
        parts = k.reshape(self.blocks, 1, length // self.blocks, width)
        matrices = (parts * self.for_product + self.for_q).flatten(1, 2)  # [blocks, h·L/blocks, D]
        biases = (k @ self.for_k.T + self.first_bias).reshape(self.blocks, -1, self.units)
        biases = biases.transpose(1, 2).reshape(self.blocks, -1, 1)
        scores = torch.cat([self._block(matrices[i], biases[i], q) for i in range(self.blocks)])
        present = filled.unsqueeze(-1)
        if self.mode == "sum":
            return scores * present
        # As in models/networks/attention.py; exp(-1e30 - max) is 0, and without behaviours all is masked to 0.
        scaled = torch.where(present, scores / self.width**0.5, torch.full_like(scores, -1e30))
        return torch.softmax(scaled, dim=0) * present

    def _block(self, matrices: Tensor, bias: Tensor, q: Tensor) -> Tensor:
        """Scores [c, N] of the c behaviours whose matrices [h·c, D] and biases [h·c, 1] are given."""
        candidates = q.shape[1]
        x = (matrices @ q + bias).reshape(self.units, -1)  # [h, c·N]
        for activation, layer in zip(self.activations, self.layers, strict=True):
            x = layer(activation(x))  # [g, c·N], then [1, c·N]
        return x.reshape(-1, candidates)


def padded(rows: Tensor, blocks: int) -> Tensor:
    """[L, width] with rows of zeros at the end, up to a multiple of `blocks`."""
    if blocks == 1:
        return rows
    missing = (rows.shape[0] + blocks - 1) // blocks * blocks - rows.shape[0]
    return torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])
