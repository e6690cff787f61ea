"""Fine-tuning with the tables as they are."""

from pathlib import Path

import pytest

from export.assemble import Trained
from models.compression.subject import Subject
from models.networks.registry import build
from models.training import train
from tests.market import DIN, Market, make_config
from tests.models.compression.subjects import WIDE_DEEP, subject

TABLES = {"din": {"arena.weight"}, "wide-deep": {"arena.weight", "first_order.arena.weight", "crosses.weight"}}


@pytest.mark.parametrize("model", [DIN, WIDE_DEEP], ids=lambda model: str(model["kind"]))
@pytest.mark.parametrize("dense_only", [False, True])
def test_tables_stay_as_they_are_and_all_else_learns(
    model: dict[str, object], dense_only: bool, market: Market, tmp_path: Path
) -> None:
    before = subject(market, model)
    config = make_config("tuned", model, epochs=1, evaluations=1)
    start = before.network.state_dict()
    found = train(config, before.model, market.data, tmp_path, 1, progress=False, start=start, dense_only=dense_only)
    moved = {name for name, value in found.named_parameters() if not value.equal(start[name])}
    tables = TABLES[str(model["kind"])]
    assert tables <= start.keys()
    assert moved == {name for name, _ in found.named_parameters()} - (tables if dense_only else set())


def test_an_interrupted_run_goes_on_with_the_tables_as_they_are(
    market: Market, trained: Trained, tmp_path: Path
) -> None:
    checkpoint = trained.finerank
    before = Subject(checkpoint.config, checkpoint.network())
    start = before.network.state_dict()
    for epochs in (1, 2):  # the second run takes up last.pt of the first
        config = make_config("tuned", DIN, epochs=epochs, evaluations=1)
        found = train(config, before.model, market.data, tmp_path, 1, progress=False, start=start, dense_only=True)
    assert found.arena.weight.equal(start["arena.weight"])
    assert build(before.model, market.data.schema).arena.weight.requires_grad
