"""The loop learns, chooses, stops, and after any interruption ends with the very same weights."""

import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bundle.schema import FIRST_KNOWN, UNKNOWN
from models import training
from models.config import TrainConfig
from models.data.batches import batches
from models.data.prepared import open_prepared
from models.data.spec import DataError
from models.evaluation import evaluate, network_scorer
from models.networks.config import DinConfig, DqmConfig, QscoreConfig
from models.networks.network import Network
from models.networks.registry import build
from models.training import StopRequest, TrainingError, average, hide, train
from tests.market import DIN, DQM, Market, make_config
from tests.models.world import random_batch

State = dict[str, torch.Tensor]
EVERYTHING: dict[str, Any] = {
    "averaging": 0.9,
    "unknown_rate": 0.1,
    "embedding_l2": 0.01,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "pretraining": {"history": "clicks", "field": "ad_id", "std": 0.1},
}
"""With the dropout of DIN: all that is random, and all that has a state."""


def run(market: Market, folder: Path, config: TrainConfig, seed: int = 1) -> Network:
    folder.mkdir(parents=True, exist_ok=True)
    assert not isinstance(config.model, QscoreConfig)
    return train(config, config.model, market.data, folder, seed, progress=False)


def same(one: Any, two: Any) -> bool:
    """Bitwise equality of whatever torch.load returns."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def left_in(folder: Path) -> dict[str, Any]:
    """All that a run left, without its clock."""
    last = torch.load(folder / "last.pt", weights_only=True)
    last["progress"].pop("seconds")
    best = torch.load(folder / "best.pt", weights_only=True)
    return {"last": last, "best": best, "log": (folder / "training.jsonl").read_text()}


@contextmanager
def at_step(number: int, what: Any) -> Iterator[None]:
    """Do `what` in the middle of the step with this number, counted from here."""
    done = 0

    def counting(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == number:
            what()
        return hide(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "hide", counting)
        yield


def steps_of(market: Market, config: TrainConfig) -> int:
    return sum(1 for _ in batches(market.data, "train", config.training.batch_size, 0))


def entropy(rate: float) -> float:
    return -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)


@pytest.mark.parametrize("model", [DIN, DQM], ids=["din", "dqm"])
def test_the_loss_falls(market: Market, tmp_path: Path, model: dict[str, Any]) -> None:
    config = make_config("falls", model, epochs=6, monitor="logloss")
    assert isinstance(config.model, DinConfig | DqmConfig)
    torch.manual_seed(1)
    before = evaluate(network_scorer(build(config.model, market.data.schema)), market.data, "train")
    after = evaluate(network_scorer(run(market, tmp_path, config)), market.data, "train")
    size = market.data.prepared.splits["train"]
    constant = entropy(size.clicks / size.impressions)
    assert after["logloss"] < constant - 0.002 < constant < before["logloss"]
    assert after["auc"] > 0.6


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(market: Market, tmp_path: Path) -> None:
    config = make_config("seeded", DIN, **EVERYTHING)
    one, two, other = (run(market, tmp_path / name, config, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert same(left_in(tmp_path / "a"), left_in(tmp_path / "b"))
    assert same(dict(one.state_dict()), dict(two.state_dict()))
    assert not torch.equal(one.arena.weight, other.arena.weight)


@pytest.fixture(scope="module")
def uninterrupted(market: Market, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(market, folder, make_config("stopped", DIN, **EVERYTHING))
    return left_in(folder)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["first", "middle", "evaluated", "end of epoch", "second epoch", "last"])
def test_stopped_by_a_signal_and_continued_ends_the_same(
    market: Market, tmp_path: Path, uninterrupted: dict[str, Any], where: str, kind: signal.Signals
) -> None:
    config = make_config("stopped", DIN, **EVERYTHING)
    steps = steps_of(market, config)
    assert steps >= 8
    stop = {
        "first": 1,
        "middle": 3,
        "evaluated": round(steps / 2),
        "end of epoch": steps,
        "second epoch": steps + 2,
        "last": 2 * steps,
    }[where]
    with at_step(stop, lambda: signal.raise_signal(kind)), pytest.raises(KeyboardInterrupt):
        run(market, tmp_path, config)
    stopped = torch.load(tmp_path / "last.pt", weights_only=True)["progress"]
    assert stopped["epoch"] * steps + stopped["step"] == stop, "it stops after the step in which the signal came"
    torch.manual_seed(999)  # another process has another random state
    run(market, tmp_path, config)
    assert same(left_in(tmp_path), uninterrupted)


def test_stopped_twice(market: Market, tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    config = make_config("stopped", DIN, **EVERYTHING)
    for step in (4, 5):
        with at_step(step, lambda: signal.raise_signal(signal.SIGINT)), pytest.raises(KeyboardInterrupt):
            run(market, tmp_path, config)
    run(market, tmp_path, config)
    assert same(left_in(tmp_path), uninterrupted)


def test_a_crash_continues_from_the_last_save(
    market: Market, tmp_path: Path, uninterrupted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise MemoryError

    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    config = make_config("stopped", DIN, **EVERYTHING)
    with at_step(7, crash), pytest.raises(MemoryError):
        run(market, tmp_path, config)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["progress"]["step"] == 6
    run(market, tmp_path, config)
    assert same(left_in(tmp_path), uninterrupted)


def test_the_time_of_a_stopped_run_counts(market: Market, tmp_path: Path) -> None:
    config = make_config("timed", DQM)
    with at_step(5, lambda: signal.raise_signal(signal.SIGINT)), pytest.raises(KeyboardInterrupt):
        run(market, tmp_path, config)
    stopped = torch.load(tmp_path / "last.pt", weights_only=True)["progress"]
    assert stopped["seconds"] > 0
    assert stopped["samples"] >= 4 * 512


def test_a_stop_request_lasts_only_while_it_is_entered() -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with StopRequest() as stop:
        earlier = stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert (earlier, stop.requested) == (False, True)
    assert {each: signal.getsignal(each) for each in before} == before


def scripted(values: list[float], name: str) -> Any:
    """An evaluation that gives these values in turn, whatever the network."""
    left = iter(values)
    return lambda *_: {"auc": 0.5, "gauc": 0.5, "logloss": 0.5} | {name: next(left)}


@pytest.mark.parametrize(
    ("monitor", "values"),
    [
        ("auc", [0.60, 0.55, 0.70, 0.65, 0.69, 0.90]),
        ("gauc", [0.60, 0.55, 0.70, 0.70, 0.69, 0.90]),
        ("logloss", [0.6, 0.65, 0.5, 0.55, 0.5, 0.1]),
    ],
)
def test_patience_counts_evaluations_since_the_best(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, monitor: str, values: list[float]
) -> None:
    monkeypatch.setattr(training, "evaluate", scripted(values, monitor))
    run(market, tmp_path, make_config("patient", DQM, epochs=5, evaluations=2, patience=2, monitor=monitor))
    log = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert [entry[monitor] for entry in log] == values[:5], "the sixth, a better one, is never made"
    assert [entry["epoch"] for entry in log] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_the_best_evaluation_is_what_is_kept(market: Market, tmp_path: Path, averaging: float) -> None:
    config = make_config("best", DIN, epochs=8, learning_rate=0.03, averaging=averaging, monitor="logloss")
    network = run(market, tmp_path, config)
    log = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    losses = [entry["logloss"] for entry in log]
    assert losses.index(min(losses)) < len(losses) - 1, "the last one is not the best here"
    found = evaluate(network_scorer(network), market.data, "valid")
    assert found["logloss"] == min(losses)
    assert same(dict(network.state_dict()), torch.load(tmp_path / "best.pt", weights_only=True))
    assert not network.training


def rates_of(market: Market, folder: Path, config: TrainConfig) -> list[float]:
    """The learning rate of every step."""
    rates: list[float] = []

    def note(optimizer: Any, *_: Any) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        assert {group["lr"] for group in optimizer.param_groups} == {rates[-1]}

    hook = register_optimizer_step_pre_hook(note)
    try:
        run(market, folder, config)
    finally:
        hook.remove()
    return rates


def test_cosine_falls_to_nothing_over_all_epochs(market: Market, tmp_path: Path) -> None:
    config = make_config("cosine", DQM, epochs=3, schedule="cosine", learning_rate=0.02)
    total = 3 * steps_of(market, config)
    expected = [0.01 * (1 + math.cos(math.pi * step / total)) for step in range(total)]
    np.testing.assert_allclose(rates_of(market, tmp_path, config), expected, rtol=1e-12)
    assert expected[0] == 0.02
    assert expected[-1] < 0.0001


def test_constant_stays(market: Market, tmp_path: Path) -> None:
    config = make_config("constant", DQM, epochs=2, learning_rate=0.02)
    assert rates_of(market, tmp_path, config) == [0.02] * 2 * steps_of(market, config)


def test_a_loss_that_is_no_number_ends_training(market: Market, tmp_path: Path) -> None:
    config = make_config("burst", DQM, learning_rate=1e25)
    with pytest.raises(TrainingError, match=r"^epoch 1, step [2-9]: the loss is (nan|inf)$"):
        run(market, tmp_path, config)


def test_a_monitor_that_is_no_number_ends_training(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "evaluate", scripted([math.nan], "gauc"))
    with pytest.raises(TrainingError, match=r"^epoch 1, step \d+: gauc of the validation split is nan$"):
        run(market, tmp_path, make_config("undefined", DQM, monitor="gauc"))


def test_scores_that_are_no_numbers_end_the_evaluation(market: Market) -> None:
    with pytest.raises(DataError, match=r"split 'valid': \d+ of \d+ scores are not finite"):
        evaluate(lambda batch: np.full(len(batch.rows), np.nan, np.float32), market.data, "valid")


def test_hidden_ids_are_the_stated_share_of_the_known_ones() -> None:
    batch = random_batch(200, 5, 8)
    hidden = hide(batch, 0.25, seed=3)
    for before, after in (
        (batch.user, hidden.user),
        (batch.ads, hidden.ads),
        (batch.histories["clicks"], hidden.histories["clicks"]),
    ):
        known, changed = before >= FIRST_KNOWN, before != after
        assert not (changed & ~known).any(), "padding and unknown stay"
        assert set(after[changed].tolist()) == {UNKNOWN}
        assert changed.sum() / known.sum() == pytest.approx(0.25, abs=0.07)
    assert torch.equal(hidden.labels, batch.labels)
    assert torch.equal(hide(batch, 0.25, seed=3).ads, hidden.ads)
    assert not torch.equal(hide(batch, 0.25, seed=4).ads, hidden.ads)
    assert hide(batch, 0.0, seed=3) is batch
    assert torch.equal(replace(batch).ads, batch.ads), "the batch itself is left alone"


def test_the_average_follows_its_formula() -> None:
    def constant(value: float) -> torch.nn.Linear:
        layer = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(layer.weight, value)
        torch.nn.init.constant_(layer.bias, value)
        return layer

    averaged, expected = constant(0.0), 0.0
    for step, value in enumerate((1.0, 2.0, -4.0, 3.0, 5.0)):
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        average(averaged, constant(value), 0.3, step)
    assert averaged.weight.flatten().tolist() == pytest.approx([expected] * 2)
    assert averaged.bias.item() == pytest.approx(expected)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_an_empty_split_is_refused_before_training(market: Market, tmp_path: Path, split: str) -> None:
    folder = Path(shutil.copytree(market.data.folder, tmp_path / "data"))
    for part in (folder / split).iterdir():
        part.unlink()
    broken = Market(market.raw, market.root, open_prepared(folder))
    with pytest.raises(DataError, match=f"split '{split}' is empty"):
        run(broken, tmp_path / "out", make_config("no-split", DQM))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_last_state_is_named(market: Market, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match=r"last\.pt: not a run to continue: .*--fresh starts over"):
        run(market, tmp_path, make_config("damaged", DQM))
