"""Runs -> flat figures: means over seeds, and paired differences against the reference."""

import numpy as np
import numpy.typing as npt

from benchmarks.leaderboard.runs import SPLIT, Run
from models.data.batches import count
from models.intervals import METRICS, bootstrap
from models.labels import prefix_of

MEASURED = (*METRICS, "calibration")


def figures(dataset: str, runs: dict[str, list[Run]], reference: str, replicates: int) -> dict[str, float]:
    """`<dataset>.<model>.<metric>` and `.<metric>_std` over seeds; `.d<metric>`, `_low`, `_high` against the reference,
    whose own are left out; `.parameters`, `.multiply_adds`, `.epoch_s` where the run has them; `<dataset>.rows`,
    `.users`, `.seeds`, and `.best_auc` of simulated data."""
    basis = runs[reference][0]
    found: dict[str, float] = {
        f"{dataset}.rows": len(basis.scored.labels),
        f"{dataset}.users": len(np.unique(basis.scored.users)),
        f"{dataset}.seeds": len(runs[reference]),
    }
    if (best := basis.checkpoint.metrics.get(f"{prefix_of(basis.checkpoint.config)}{SPLIT}.best_auc")) is not None:
        found[f"{dataset}.best_auc"] = best
    for model, own in runs.items():
        found |= {f"{dataset}.{model}.{name}": value for name, value in _own(own).items()}
    differences = _differences(runs, reference, replicates)
    return found | {f"{dataset}.{name}": value for name, value in differences.items()}


def _own(runs: list[Run]) -> dict[str, float]:
    found: dict[str, float] = {}
    for metric in MEASURED:
        key = f"{prefix_of(runs[0].checkpoint.config)}{SPLIT}.{metric}"
        values = [run.checkpoint.metrics.get(key, np.nan) for run in runs]
        found[metric] = float(np.mean(values))
        if len(runs) > 1:
            found[f"{metric}_std"] = float(np.std(values, ddof=1))
    for figure, key in (("parameters", "model.parameters"), ("multiply_adds", "model.multiply_adds")):
        if (value := runs[0].checkpoint.metrics.get(key)) is not None:
            found[figure] = value
    rates = [rate for run in runs if (rate := run.checkpoint.metrics.get("train.samples_per_s"))]
    if rates:
        found["epoch_s"] = count(runs[0].data, "train") / float(np.median(rates))
    return found


def _differences(runs: dict[str, list[Run]], reference: str, replicates: int) -> dict[str, float]:
    """Paired, so only of models that scored the same impressions in the same order; the others have none."""
    basis = runs[reference][0]
    paired = [model for model, own in runs.items() if all(same_rows(run, basis) for run in own)]
    places: dict[str, list[int]] = {}
    scores: list[npt.NDArray[np.float32]] = []
    for model in paired:
        places[model] = list(range(len(scores), len(scores) + len(runs[model])))
        scores += [run.scored.scores for run in runs[model]]
    drawn = bootstrap(basis.scored.labels, basis.scored.users, scores, replicates)
    found: dict[str, float] = {}
    for model in paired:
        for metric in METRICS if model != reference else ():
            each = drawn.difference(metric, places[model], places[reference])
            key = f"{model}.d{metric}"
            found |= {key: each.value, f"{key}_low": each.low, f"{key}_high": each.high}
    return found


def same_rows(one: Run, other: Run) -> bool:
    """Whether two runs scored the same impressions in the same order."""
    pairs = ((getattr(one.scored, name), getattr(other.scored, name)) for name in ("labels", "users", "rows"))
    return all(np.array_equal(a, b) for a, b in pairs)
