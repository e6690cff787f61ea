"""Both forms of the simulated log hold the same impressions, of KuaiRand's shape."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.training.data import (
    CONTEXT_FIELDS,
    HISTORY,
    LONGEST,
    USER_FIELDS,
    VIDEO_FIELDS,
    catalogue,
    described,
    simulate,
    write,
)
from models.data.batches import Batch, batches, count


def grouped_rows(batch: Batch) -> list[tuple[int, ...]]:
    """Each candidate with everything of its request, histories padded to LONGEST."""
    history = batch.histories["clicks"]
    padded = torch.zeros(len(history), LONGEST, history.shape[2], dtype=torch.int64)
    padded[:, : history.shape[1]] = history
    common = torch.cat([batch.user, batch.context, padded.transpose(1, 2).flatten(1)], dim=1)[batch.request]
    return sorted(map(tuple, torch.cat([common, batch.ads, batch.labels.long().unsqueeze(1)], dim=1).tolist()))


def flat_rows(folder: Path, split: str) -> list[tuple[int, ...]]:
    with np.load(folder / "flat.npz", allow_pickle=False) as flat:
        names = (*USER_FIELDS, *CONTEXT_FIELDS, *(f"history.{name}" for name in HISTORY), *VIDEO_FIELDS, "labels")
        columns = [flat[f"{split}.{name}"] for name in names]
        filled = (flat[f"{split}.history.video"] != 0).sum(1)
        assert np.array_equal(flat[f"{split}.length"], filled)
    return sorted(map(tuple, np.column_stack(columns).astype(np.int64).tolist()))


@pytest.mark.parametrize(("shown", "full"), [(1, False), (1, True), (4, False)])
def test_flat_rows_are_the_same_impressions(shown: int, full: bool, tmp_path: Path) -> None:
    write(simulate(240, shown, full=full), tmp_path, valid=10)
    data = described(tmp_path)
    for split, impressions in (("train", 240 - 10 * shown), ("valid", 10 * shown)):
        assert count(data, split) == impressions
        (batch,) = batches(data, split, impressions, seed=1)
        assert len(batch.user) == impressions // shown
        assert grouped_rows(batch) == flat_rows(tmp_path, split)
        if full:
            assert batch.histories["clicks"].all()


def test_it_has_kuairands_shape() -> None:
    log = simulate(20_000, 1, full=False)
    lengths = (log.history != 0).sum(1)
    assert (log.user.shape[1], log.context.shape[1]) == (30, 2)
    assert 19 < lengths.mean() < 21.5
    assert 15 <= np.median(lengths) <= 17
    assert lengths.min() >= 1
    assert 0.08 < (lengths == LONGEST).mean() < 0.13
    assert 0.3 < log.labels.mean() < 0.6
    assert np.array_equal(log.labels, simulate(20_000, 1, full=False).labels)


def test_clicks_depend_on_what_the_user_watched() -> None:
    """Videos of a tag that the history has are clicked more often."""
    log, tag = simulate(20_000, 1, full=True), list(VIDEO_FIELDS).index("tag")
    tags = catalogue()[:, tag]
    watched = (tags[log.history] == tags[log.ads]).any(1)
    assert log.labels[watched].mean() > log.labels[~watched].mean() + 0.2
