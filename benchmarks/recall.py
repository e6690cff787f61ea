"""What each stage before the fine-ranker loses, against DQM over every ad in fp32.

The networks of the standard work are random, so DIN agrees with DQM on nothing, and a share of DIN's own best ads would
mean nothing here: `adrank evaluate --funnel` measures that with trained models. What can be asked of random networks is
whether the ads that DQM itself values most, pCTR × bid, come through: cells, Qscores and bytes are what may lose them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.market import CHUNK, Market, dqm_query, make_networks
from benchmarks.report import Report, Table
from bundle.folder import Bundle
from bundle.golden import Common
from bundle.schema import FIRST_KNOWN
from service.loaded import LoadedBundle
from service.retrieval import retrieve, worthiest
from service.selection import likelihood, top

BEST = (10, 1_000)


@dataclass(frozen=True, slots=True)
class Asked:
    """One user, and what DQM says of every ad."""

    common: Common
    query: npt.NDArray[np.float32]
    offset: float
    scores: npt.NDArray[np.float32]
    """float32[rows]: logits in fp32 in the order of the bundle's rows, -inf for the reserved ones."""


class Exhaustive:
    """DQM in fp32 over the whole catalogue, for some users of the standard work's bundle."""

    def __init__(self, bundle: Bundle, ads: int, unit: str, users: int) -> None:
        networks, market = make_networks(ads, unit), Market(ads, bundle.manifest.users, bundle.manifest.made.seed)
        commons = [market.common(networks.schema, user) for user in range(users)]
        queries = [dqm_query(networks.dqm, common) for common in commons]
        together = np.stack([query for query, _ in queries])
        scores = np.full((users, ads + FIRST_KNOWN), -np.inf, dtype=np.float32)
        for start in range(FIRST_KNOWN, ads + FIRST_KNOWN, CHUNK):
            piece = np.arange(start, min(start + CHUNK, ads + FIRST_KNOWN))
            ids = torch.from_numpy(market.fields(bundle.ads.index.places[piece])).long()
            with torch.inference_mode():
                vectors = networks.dqm.ad_vectors(ids, torch.zeros(len(piece), 0)).numpy()
            scores[:, piece] = together @ vectors.T
        scores += np.array([offset for _, offset in queries], dtype=np.float32)[:, None]
        self.bundle = bundle
        self.asked = [
            Asked(common, query, offset, row)
            for common, (query, offset), row in zip(commons, queries, scores, strict=True)
        ]

    def values(self, asked: Asked) -> npt.NDArray[np.float32]:
        """pCTR × bid of every row, float32[rows]; those of the reserved rows are 0."""
        return np.where(np.isfinite(asked.scores), likelihood(asked.scores) * self.bundle.ads.bids, np.float32(0))


@dataclass(frozen=True, slots=True)
class Judge:
    """What a stage let through, against the ads of the largest values."""

    values: npt.NDArray[np.float32]
    best: npt.NDArray[np.int64]
    """The BEST[-1] rows of the largest values, best first."""

    @classmethod
    def of(cls, values: npt.NDArray[np.float32]) -> "Judge":
        """From the value of every row."""
        rows = top(values, BEST[-1])
        return cls(values, rows[np.argsort(-values[rows], kind="stable")])

    def figures(self, kept: npt.NDArray[np.int64]) -> list[float]:
        """Share kept of the 10 and of the 1,000 best, and the share lost of the 10 best's value."""
        inside = np.zeros(len(self.values), dtype=np.bool_)
        inside[kept] = True
        shown = kept[top(self.values[kept], BEST[0])]
        lost = 1.0 - float(self.values[shown].sum()) / float(self.values[self.best[: BEST[0]]].sum())
        return [*(float(inside[self.best[:n]].mean()) for n in BEST), lost]


def recall_table(report: Report, key: str, live: LoadedBundle, exhaustive: Exhaustive) -> None:
    """`<key>.recall10_<stage>`, `.recall1000_<stage>` and `.lost_<stage>` for retrieval, qscore and prerank, the same
    with `_exact` where the nearest ads were matched instead of cells, and `<key>.int8_agrees`."""
    bundle, sizes = live.bundle, live.sizes
    found: dict[str, list[list[float]]] = {}
    agrees = []
    for asked in exhaustive.asked:
        judge = Judge.of(exhaustive.values(asked))
        retrieved = retrieve(bundle, asked.query, asked.common.histories, sizes.retrieval, None)
        matched = np.concatenate((retrieved.matched.rows(), retrieved.others))
        scored = worthiest(bundle, retrieved, sizes.qscore)
        logits = bundle.ads.vectors.products(scored, asked.query) + np.float32(asked.offset)
        near = scored[top(likelihood(logits) * bundle.ads.bids[scored], sizes.prerank)]
        agrees.append(float(np.isin(scored[top(judge.values[scored], sizes.prerank)], near).mean()))
        exact = top(asked.scores, sizes.retrieval)
        exact_scored = exact[top(bundle.ads.worth(exact), sizes.qscore)]
        exact_near = exact_scored[top(judge.values[exact_scored], sizes.prerank)]
        for stage, kept in (
            ("retrieval", matched),
            ("qscore", scored),
            ("prerank", near),
            ("retrieval_exact", exact),
            ("qscore_exact", exact_scored),
            ("prerank_exact", exact_near),
        ):
            found.setdefault(stage, []).append(judge.figures(kept))
    rows: list[tuple[str | int | float, ...]] = []
    for stage, figures in found.items():
        means = [float(each) for each in np.mean(figures, axis=0)]
        rows.append((stage.replace("_exact", ", nearest ads and fp32 instead"), *means))
        for name, mean in zip(("recall10", "recall1000", "lost"), means, strict=True):
            report.figures[f"{key}.{name}_{stage}"] = mean
    report.figures[f"{key}.int8_agrees"] = float(np.mean(agrees))
    columns = ("after", "of DQM's best 10", "of its best 1,000", "value lost in the 10")
    title = f"{len(bundle.ads.index):,} ads: what is left of those that fp32 DQM values most, {len(agrees)} users"
    report.tables.append(Table(title, columns, rows))
