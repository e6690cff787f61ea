"""Embedding tables of fewer rows, or of a dimension of their own. One table each, beside the arena that holds the rest.

    vector of an id = combine(w[row_1], …, w[row_k]) · E         w [2 + rows, r], E the expansion [r, d], or none

Rows of w are what is left of them where they are stored in less than fp32 (models/networks/rounding.py); E is fp32.

    cut                  the `rows` most frequent ids have a row each, all others the unknown's, by a remap array
    hash                 one row: h(id) of m                                  (Weinberger et al., arXiv 0902.2206)
    multi_hash           the sum of k rows of the same m, by k hashes         (Serrà and Karatzoglou, arXiv 1706.03993)
    quotient_remainder   id i: rows ⌊i/m⌋ and i mod m of two tables           (Shi et al., arXiv 1909.02107)
                         sum: q + r        product: (1 + q) ⊙ r

The product is written with 1 + q so that a regularised q goes to "no correction" and not to "no vector". A hash is
((a·i + b) mod p) mod m with p = 2³¹ − 1 (Carter and Wegman, JCSS 18, 1979): ids are below 2³¹, so no product leaves
int64, and torch and ONNX compute the same rows.

Row 0 of w is the padding, zero and never trained; row 1 is the unknown, which starts at zero. Both are what they are in
the arena: 0 + … + 0, 0 + … + w[1], and (1 + 0) ⊙ w[1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.rounding import row_bytes
from bundle.schema import FIRST_KNOWN, PADDING, UNKNOWN
from models.config import ConfigError
from models.networks.config import TableConfig
from models.networks.rounding import rounded

PRIME = 2**31 - 1
HASHES = ((48271, 11), (69621, 40_692), (16807, 1_343), (39373, 7_919), (742_938_285, 3), (950_706_376, 17))
"""Factors a and offsets b. The factors are those of multiplicative generators modulo p that pass the spectral test
(Fishman and Moore, SIAM J. Sci. Stat. Comput. 7, 1986; L'Ecuyer, CACM 31, 1988)."""


class CompressedTable(nn.Module):
    """One table of `size` ids."""

    remap: Tensor
    continuing = "by id"
    """Training cannot go on from another vocabulary: an id's rows depend on the id (models/continuing.py)."""

    def __init__(self, name: str, size: int, dimension: int, std: float, config: TableConfig) -> None:
        """`dimension`: of the network's embeddings. ConfigError when the table would not be smaller."""
        super().__init__()
        self.name, self.size, self.config = name, size, config
        known, rows = size - FIRST_KNOWN, config.rows or size - FIRST_KNOWN
        if rows > known:
            raise ConfigError(f"model.tables: {name!r} has {known} known ids, rows is {rows}")
        if config.dimension is not None and config.dimension > dimension:
            raise ConfigError(
                f"model.tables: the embeddings' dimension is {dimension}, that of {name!r} is {config.dimension}"
            )
        self.buckets = rows
        self.quotients = -(-known // rows) if config.method == "quotient_remainder" else 0
        self.width = config.dimension or dimension
        """Of the stored rows."""
        self.weight = nn.Parameter(torch.empty(FIRST_KNOWN + self.quotients + rows, self.width))
        nn.init.normal_(self.weight, std=std)
        with torch.no_grad():
            self.weight[:FIRST_KNOWN] = 0.0
        self.expansion: nn.Parameter | None = None
        if config.dimension is not None:
            self.expansion = nn.Parameter(torch.empty(self.width, dimension))
            nn.init.orthogonal_(self.expansion)
        self.register_buffer("remap", first_rows(size, rows) if config.method == "cut" else None)

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the weight that make up each id, int64[..., k]."""
        method = self.config.method
        if method is None:
            return ids.unsqueeze(-1)
        if method == "cut":
            return self.remap[ids].long().unsqueeze(-1)
        known = (ids - FIRST_KNOWN).clamp(min=0)
        if method == "quotient_remainder":
            found = [known // self.buckets, self.quotients + known % self.buckets]
        else:
            hashes = HASHES[: self.config.hashes if method == "multi_hash" else 1]
            found = [(known * a + b) % PRIME % self.buckets for a, b in hashes]
        # Padding and unknown: their own row once, the zero row of the padding otherwise.
        special = [torch.zeros_like(ids)] * (len(found) - 1) + [ids]
        is_known = ids >= FIRST_KNOWN
        both = zip(found, special, strict=True)
        return torch.stack([torch.where(is_known, row + FIRST_KNOWN, own) for row, own in both], dim=-1)

    def combine(self, parts: Tensor) -> Tensor:
        """[..., r] of the rows' values [..., k, r]."""
        if parts.shape[-2] == 1:
            return parts.squeeze(-2)
        if self.config.method == "quotient_remainder" and self.config.combine == "product":
            return (1 + parts[..., 0, :]) * parts[..., 1, :]
        return parts.sum(-2)

    def narrow(self, ids: Tensor) -> Tensor:
        """Embeddings [..., r] of ids [...], before the expansion."""
        return self.combine(self.stored(self.rows(ids)))

    def stored(self, rows: Tensor) -> Tensor:
        """What is left of rows [..., r] of these numbers [...] where they are served."""
        return rounded(F.embedding(rows, self.weight, padding_idx=PADDING), self.config.values)

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings [..., d] of ids [...]."""
        found = self.narrow(ids)
        return found if self.expansion is None else found @ self.expansion

    def prepare(self, lookups: Tensor) -> None:
        """Choose the ids that a `cut` keeps, by how often each is looked up, int64[size]; of equals the lower id."""
        if self.config.method == "cut":
            self.remap.copy_(kept_rows(lookups, self.buckets))

    def stored_bytes(self) -> int:
        """What it takes where it is served: rows, expansion and remap array."""
        held: list[Tensor] = [] if self.expansion is None else [self.expansion]
        held += [self.remap] if self.config.method == "cut" else []
        beside = sum(each.numel() * each.element_size() for each in held)
        return len(self.weight) * row_bytes(self.config.values, self.width) + beside


def integer_type(largest: int) -> torch.dtype:
    """The smallest integer type for 0..largest that torch gathers from."""
    for dtype in (torch.uint8, torch.int16):
        if largest <= torch.iinfo(dtype).max:
            return dtype
    return torch.int32


def first_rows(size: int, rows: int) -> Tensor:
    """A remap array [size] that keeps the first `rows` ids: where nothing was counted yet."""
    return kept_rows(torch.zeros(size, dtype=torch.int64), rows)


def kept_rows(lookups: Tensor, rows: int) -> Tensor:
    """Rows [size] of all ids where the `rows` most frequent known ones keep one, in the order of their ids."""
    remap = torch.full((len(lookups),), UNKNOWN, dtype=integer_type(FIRST_KNOWN + rows - 1))
    remap[PADDING] = PADDING
    order = torch.sort(lookups[FIRST_KNOWN:], descending=True, stable=True).indices
    kept = torch.sort(order[:rows]).values + FIRST_KNOWN
    remap[kept] = torch.arange(FIRST_KNOWN, FIRST_KNOWN + rows).to(remap.dtype)
    return remap
