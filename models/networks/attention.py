"""DIN's activation unit (arXiv 1706.06978, section 4.3): how much does each behaviour matter for this candidate?

Letters: B requests, M candidates, L behaviours, D width of a behaviour, h units of the first layer.
"""

import torch
from torch import Tensor, nn

from models.networks.activations import Activation
from models.networks.low_rank import entry, finish


class ActivationUnit(nn.Module):
    """Candidate q and behaviour k -> weight, by a small network over [q, k, q - k, q ⊙ k].

    The first layer is never applied to that concatenation. With W = [Wq Wk Wd Wp] it equals
    (Wq + Wd)q + (Wk - Wd)k + Wp(q ⊙ k), so the k-term is computed once a request and no [M, L, 4D] tensor exists.
    Of low rank, W = U V, it is V that is split: a pair of candidate and behaviour costs r(D + h) instead of D·h, so
    that pays where r < D·h / (D + h), D and not 4D.
    """

    def __init__(self, width: int, hidden: tuple[int, int], activation: str, mode: str) -> None:
        super().__init__()
        self.width, self.mode = width, mode
        self.first: nn.Module = nn.Linear(4 * width, hidden[0])
        self.first_activation = Activation(activation, hidden[0])
        self.second: nn.Module = nn.Linear(hidden[0], hidden[1])
        self.second_activation = Activation(activation, hidden[1])
        self.out = nn.Linear(hidden[1], 1)

    def split(self) -> tuple[Tensor, Tensor, Tensor]:
        """The first layer's weights for q, for k and for q ⊙ k, each [h, D]; [r, D] where it is of low rank."""
        wq, wk, wd, wp = torch.split(entry(self.first).weight, self.width, dim=1)
        return wq + wd, wk - wd, wp

    def forward(self, q: Tensor, k: Tensor, filled: Tensor, request: Tensor) -> Tensor:
        """The interest vector of each candidate, [M, D].

        q [M, D] candidates, k [B, L, D] behaviours, filled bool[B, L] (False where padding), request int64[M].
        """
        for_q, for_k, for_product = self.split()
        mask = filled[request]  # [M, L]
        mine = k[request]  # [M, L, D]
        x = (q.unsqueeze(1) * mine) @ for_product.T  # [M, L, h]
        bias = entry(self.first).bias
        of_candidates = q @ for_q.T
        x = x + (k @ for_k.T)[request] + (of_candidates if bias is None else of_candidates + bias).unsqueeze(1)
        x = self.first_activation(finish(self.first, x, mask), mask)
        x = self.second_activation(finish(self.second, entry(self.second)(x), mask), mask)
        weights = self.normalise(self.out(x).squeeze(-1), mask)  # [M, L]
        return (weights.unsqueeze(1) @ mine).squeeze(1)

    def normalise(self, scores: Tensor, filled: Tensor) -> Tensor:
        """Scores [M, L] -> weights: 0 at padding; softmax weights of a row without behaviours are all 0."""
        if self.mode == "sum":
            return scores * filled
        scaled = (scores / self.width**0.5).masked_fill(~filled, -torch.inf)
        return torch.softmax(scaled, dim=1).nan_to_num(0.0)
