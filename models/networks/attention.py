"""DIN's activation unit (arXiv 1706.06978, section 4.3): how much does each behaviour matter for this candidate?

Letters: B requests, M candidates, F behaviours of all requests, P pairs of a candidate and a behaviour of its request,
D width of a behaviour, h units of the first layer. There is no padding here: of KuaiRand's histories, up to 50 long,
three fifths would be.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.activations import Activation
from models.networks.low_rank import entry, finish


class ActivationUnit(nn.Module):
    """Candidate q and behaviour k -> weight, by a small network over [q, k, q - k, q ⊙ k].

    The first layer is never applied to that concatenation. With W = [Wq Wk Wd Wp] it equals
    (Wq + Wd)q + (Wk - Wd)k + Wp(q ⊙ k), so the k-term is computed once a request and no [P, 4D] tensor exists.
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

    def forward(self, q: Tensor, k: Tensor, lengths: Tensor, request: Tensor) -> Tensor:
        """The interest vector of each candidate, [M, D].

        q [M, D] candidates, k [F, D] behaviours, those of request 0 first, lengths int64[B] how many each request has,
        request int64[M].
        """
        counts = lengths[request]  # [M]: pairs of each candidate
        starts = counts.cumsum(0) - counts
        candidate = torch.repeat_interleave(counts)  # [P]
        place = torch.arange(len(candidate)) - starts[candidate]
        behaviour = place + (lengths.cumsum(0) - lengths)[request][candidate]

        for_q, for_k, for_product = self.split()
        product = q.index_select(0, candidate) * k.index_select(0, behaviour)  # [P, D]
        x = torch.addmm((k @ for_k.T).index_select(0, behaviour), product, for_product.T)  # [P, h]
        x = x + F.linear(q, for_q, entry(self.first).bias).index_select(0, candidate)
        x = self.second_activation(self.second(self.first_activation(finish(self.first, x))))
        weights = self.out(x).squeeze(-1)  # [P]
        if self.mode == "softmax":
            weights = _softmax(weights / self.width**0.5, candidate, place, len(q))
        return F.embedding_bag(behaviour, k, starts, mode="sum", per_sample_weights=weights)


class Pooling(nn.Module):
    """An activation unit over behaviours that come with padding."""

    def __init__(self, unit: ActivationUnit) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, q: Tensor, k: Tensor, filled: Tensor, request: Tensor) -> Tensor:
        """The interest vector of each candidate, [M, D].

        q [M, D] candidates, k [B, L, D] behaviours, filled bool[B, L] (False where padding), request int64[M].
        """
        pooled: Tensor = self.unit(q, k[filled], filled.sum(1), request)
        return pooled


def _softmax(scores: Tensor, candidate: Tensor, place: Tensor, candidates: int) -> Tensor:
    """Scores [P] -> weights [P], of each candidate 1 together."""
    longest = int(place.max()) + 1 if len(place) else 1
    padded = scores.new_full((candidates, longest), -torch.inf).index_put((candidate, place), scores)
    return torch.softmax(padded, dim=1)[candidate, place]
