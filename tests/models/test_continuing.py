"""A network that goes on: what belongs to a value stays with it, and nothing else decides what the first step finds."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from bundle.schema import FIRST_KNOWN, UNKNOWN, FieldSpec, Kind
from bundle.vocabulary import Vocabulary
from models.checkpoint import Checkpoint, open_checkpoint
from models.config import ConfigError
from models.continuing import base_of, continue_moments, continue_network, identity, require_continuable
from models.data.batches import Batch, batches, count, recent
from models.data.prepared import PreparedData
from models.networks.config import QscoreConfig
from models.networks.layers import Arena
from models.networks.network import Network
from models.networks.registry import build
from models.train import train_one
from models.training import train
from tests.models.growing import DIN, DQM, GWEN, HALF, config, early, late, trained, write_shop
from tests.models.test_training import at_step, left_in, same

MODELS = [DIN, GWEN, DQM]


class Shop:
    """Both halves, and a network of each kind trained on the first."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.raw = write_shop(folder / "raw")
        self.early = early(self.raw, folder / "early")
        self.earlier = {model["kind"]: trained(model, self.early, folder / model["kind"]) for model in MODELS}
        self.late = late(self.raw, folder / "late", base_of(self.earlier["din"]))

    def moved(self, model: dict[str, Any]) -> Network:
        """A network for the second half that took over the weights, before its first step."""
        torch.manual_seed(7)
        settings = config(model).model
        assert not isinstance(settings, QscoreConfig)
        network = build(settings, self.late.schema)
        continue_network(network, self.late, self.earlier[model["kind"]])
        return network.eval()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def copy(shop: Shop, tmp_path: Path) -> Path:
    """DIN's checkpoint, to be damaged."""
    return Path(shutil.copytree(shop.earlier["din"].folder, tmp_path / "din"))


def as_before(shop: Shop, batch: Batch) -> Batch:
    """A batch of the second half with the ids that the first half gives its values, one by one."""

    def translated(fields: tuple[FieldSpec, ...], ids: torch.Tensor) -> torch.Tensor:
        found = ids.clone()
        columns = [field for field in fields for _ in range(field.width)]
        for column, field in enumerate(columns):
            if field.kind is Kind.BUCKETED:
                continue
            new, old = (each.vocabularies[field.vocabulary or ""] for each in (shop.late, shop.early))
            table = [0, UNKNOWN, *(old.id_of(new.value_of(i)) for i in range(FIRST_KNOWN, new.size))]
            found[..., column] = torch.tensor(table)[ids[..., column]]
        return found

    schema = shop.late.schema
    of_behaviours = tuple(field for field in schema.ad.id_fields if field.name in schema.histories[0].fields)
    return replace(
        batch,
        user=translated(schema.user.id_fields, batch.user),
        context=translated(schema.context.id_fields, batch.context),
        ads=translated(schema.ad.id_fields, batch.ads),
        histories={name: translated(of_behaviours, ids) for name, ids in batch.histories.items()},
    )


def logits(network: Network, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = network(batch)
    return found


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["kind"])
def test_before_its_first_step_it_scores_as_the_earlier_one_does(shop: Shop, model: dict[str, Any]) -> None:
    now, old, new = shop.moved(model), shop.earlier[model["kind"]].network(), 0
    for batch in batches(shop.late, "valid", 10_000):
        before = as_before(shop, batch)
        new += int((before.ads[:, 0] == UNKNOWN).sum())
        assert not torch.equal(before.context, batch.context)
        torch.testing.assert_close(logits(now, batch), logits(old, before), rtol=0, atol=1e-6)
    assert 30 < new < 170, "rows of old ads and of new ones"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["kind"])
def test_rows_of_the_first_half_score_the_same_in_both_preparations(shop: Shop, model: dict[str, Any]) -> None:
    def scores(network: Network, data: PreparedData) -> dict[int, float]:
        """By time; every row is a request of its own here."""
        found = torch.cat([logits(network, batch) for batch in batches(data, "train", 100)])
        times = [time for path in data.parts("train") for time in pl.read_parquet(path)["time"]]
        return dict(zip(times, found.tolist(), strict=True))

    old, new = scores(shop.earlier[model["kind"]].network(), shop.early), scores(shop.moved(model), shop.late)
    assert sorted(old) == list(range(HALF - 200))
    assert [new[time] for time in old] == pytest.approx(list(old.values()), abs=1e-6)


def test_rows_move_by_value(shop: Shop) -> None:
    network, old = shop.moved(DIN), shop.earlier["din"].network()
    assert torch.equal(network.arena.weight[0], torch.zeros(3))
    for name, vocabulary in shop.late.vocabularies.items():
        before = shop.early.vocabularies[name]
        start, was = network.arena.starts[name], old.arena.starts[name]
        unknown = old.arena.weight[was + UNKNOWN]
        assert unknown.abs().sum() > 0, "training has moved it"
        assert torch.equal(network.arena.weight[start + UNKNOWN], unknown)
        for value in range(FIRST_KNOWN, vocabulary.size):
            # id_of gives UNKNOWN for a new value, whose row is that of the unknown
            expected = old.arena.weight[was + before.id_of(vocabulary.value_of(value))]
            assert torch.equal(network.arena.weight[start + value], expected)
    for name in ("buckets:age", "buckets:price"):
        size = network.arena.fields[name].size
        start, was = network.arena.starts[name], old.arena.starts[name]
        assert torch.equal(network.arena.weight[start + 1 : start + size], old.arena.weight[was + 1 : was + size])
    for name, value in old.state_dict().items():
        if name != "arena.weight":
            assert torch.equal(network.state_dict()[name], value), name


def optimizer_of(network: Network) -> torch.optim.AdamW:
    tables = [module.weight for module in network.modules() if isinstance(module, Arena)]
    dense = [p for p in network.parameters() if all(p is not table for table in tables)]
    groups: list[dict[str, Any]] = [{"params": dense}, {"params": tables, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.5)


def test_moments_move_by_value_and_the_step_goes_on(shop: Shop) -> None:
    earlier = shop.earlier["din"]
    settings = config(DIN).model
    assert not isinstance(settings, QscoreConfig)
    network, old = build(settings, shop.late.schema), earlier.network()
    moved = continue_network(network, shop.late, earlier)
    optimizer = optimizer_of(network)
    continue_moments(optimizer, network, earlier, moved)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5], "of this run, not of the earlier one"
    saved = torch.load(earlier.folder / "last.pt", weights_only=True)["optimizer"]
    order = [p for group in optimizer.param_groups for p in group["params"]]
    steps = sum(1 for _ in batches(shop.early, "train", 100, 1))
    for index, parameter in enumerate(order):
        state, before = optimizer.state[parameter], saved["state"][index]
        assert state["step"] == before["step"] == steps
        if parameter is not network.arena.weight:
            assert torch.equal(state["exp_avg"], before["exp_avg"])
            assert torch.equal(state["exp_avg_sq"], before["exp_avg_sq"])
    state, before = optimizer.state[network.arena.weight], saved["state"][len(order) - 1]
    for name, vocabulary in shop.late.vocabularies.items():
        start, was, known = network.arena.starts[name], old.arena.starts[name], shop.early.vocabularies[name]
        for value in range(FIRST_KNOWN, vocabulary.size):
            i = known.id_of(vocabulary.value_of(value))
            for key in ("exp_avg", "exp_avg_sq"):
                expected = torch.zeros(3) if i == UNKNOWN else before[key][was + i]
                assert torch.equal(state[key][start + value], expected)
        assert torch.equal(state["exp_avg_sq"][start + UNKNOWN], before["exp_avg_sq"][was + UNKNOWN])


def test_the_first_step_of_a_new_value_is_as_long_as_said() -> None:
    """(1 - β₁)/√(1 - β₂) learning rates, once the corrections of bias are gone."""
    table = torch.nn.Parameter(torch.zeros(2, 1))
    optimizer = torch.optim.AdamW([table], lr=0.01, weight_decay=0.0)
    moments = torch.tensor([[0.0], [1.0]])
    kept = {"step": torch.tensor(1e5), "exp_avg": moments.clone(), "exp_avg_sq": moments.clone()}
    optimizer.load_state_dict({"state": {0: kept}, "param_groups": optimizer.state_dict()["param_groups"]})
    table.grad = torch.tensor([[0.3], [0.0]])
    optimizer.step()
    assert table[0].item() == pytest.approx(-0.01 * 0.1 / 0.001**0.5, rel=1e-3)


def test_only_rows_since_the_given_time_are_trained_on(shop: Shop) -> None:
    data = recent(shop.late, HALF)
    assert count(shop.late, "train") == 2_800
    assert count(data, "train") == 2_800 - HALF
    assert count(data, "valid") == 200
    assert sum(len(batch.labels) for batch in batches(data, "train", 64, 5)) == 2_800 - HALF
    assert sum(len(batch.labels) for batch in batches(data, "valid", 64)) == 200
    with pytest.raises(Exception, match=r"late: no training row is at 2800 or later, the last is at 2799"):
        recent(shop.late, 2_800)


def test_new_values_enter_and_are_trained(shop: Shop, tmp_path: Path) -> None:
    earlier = shop.earlier["din"]
    train_one(config(DIN), recent(shop.late, HALF), tmp_path / "next", 1, progress=False, earlier=earlier)
    network, start = open_checkpoint(tmp_path / "next").network(), shop.moved(DIN)
    first = network.arena.starts["ad"]
    rows = {ad: network.arena.weight[first + shop.late.vocabularies["ad"].id_of(ad)] for ad in (40, 42)}
    assert shop.early.vocabularies["ad"].id_of(40) == shop.early.vocabularies["ad"].id_of(42) == UNKNOWN
    assert not torch.equal(rows[40], rows[42])
    assert not torch.equal(network.mlp.out.weight, start.mlp.out.weight)  # type: ignore[union-attr,arg-type]
    head = json.loads((tmp_path / "next/config.json").read_text())
    assert head["since"] == HALF
    assert head["continued"] == identity(config(DIN), earlier)
    progress = torch.load(tmp_path / "next/last.pt", weights_only=True)["progress"]
    assert progress["samples"] == 2_800 - HALF


def test_a_run_can_go_on_from_a_continued_one_without_any_prepared_data(shop: Shop, tmp_path: Path) -> None:
    earlier = shop.earlier["din"]
    train_one(config(DIN), recent(shop.late, HALF), tmp_path / "next", 1, progress=False, earlier=earlier)
    again = open_checkpoint(tmp_path / "next")
    base = base_of(again)
    assert {name: len(each) for name, each in base.vocabularies.items()} == {
        name: len(each) for name, each in shop.late.vocabularies.items()
    }
    data = late(shop.raw, tmp_path / "third", base)
    train_one(config(DIN), data, tmp_path / "last", 1, progress=False, earlier=again)
    assert open_checkpoint(tmp_path / "last").metrics["valid.impressions"] == 200


@pytest.mark.parametrize("where", [1, 5, 13])
def test_stopped_and_continued_ends_the_same(shop: Shop, tmp_path: Path, where: int) -> None:
    settings = config(DIN, epochs=2, embedding_l2=0.01, schedule="cosine")
    data, earlier = recent(shop.late, HALF), shop.earlier["din"]
    assert not isinstance(settings.model, QscoreConfig)

    def run(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        assert not isinstance(settings.model, QscoreConfig)
        train(settings, settings.model, data, folder, 1, progress=False, earlier=earlier)

    run(tmp_path / "whole")
    with at_step(where, lambda: signal.raise_signal(signal.SIGINT)), pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped")
    torch.manual_seed(999)
    run(tmp_path / "stopped")
    assert same(left_in(tmp_path / "stopped"), left_in(tmp_path / "whole"))


def test_a_qscore_keeps_only_the_ids(shop: Shop, tmp_path: Path) -> None:
    """Its data are those that networks of the same checkpoints continue with, so they can be exported together."""
    qscore = trained({"kind": "qscore"}, shop.early, tmp_path / "qscore")
    data = late(shop.raw, tmp_path / "data", base_of(qscore))
    assert data.prepared.fingerprint == shop.late.prepared.fingerprint
    require_continuable(config({"kind": "qscore"}), shop.earlier["din"], [tmp_path / "out"])
    train_one(config({"kind": "qscore"}), data, tmp_path / "next", 1, progress=False, earlier=qscore)
    assert identity(config({"kind": "qscore"}), qscore) is None
    scratch = trained({"kind": "qscore"}, late(shop.raw, tmp_path / "fresh", None), tmp_path / "scratch")
    assert np.array_equal(open_checkpoint(tmp_path / "next").qscore().scores, scratch.qscore().scores)


class ById(torch.nn.Module):
    continuing = "by id"


class Counted(torch.nn.Module):
    continuing = "counted"

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("shown", torch.full((size,), float(size)))


def test_what_is_counted_from_data_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier, settings = shop.earlier["gwen"], config(GWEN).model
    assert not isinstance(settings, QscoreConfig)
    network, old = build(settings, shop.late.schema), earlier.network()
    network.counts, old.counts = Counted(9), Counted(4)
    monkeypatch.setattr(Checkpoint, "network", lambda _: old)
    continue_network(network, shop.late, earlier)
    assert network.state_dict()["counts.shown"].tolist() == [9.0] * 9


def test_rows_of_ids_that_cannot_move_are_refused(shop: Shop) -> None:
    earlier, settings = shop.earlier["gwen"], config(GWEN).model
    assert not isinstance(settings, QscoreConfig)
    network = build(settings, shop.late.schema)
    network.crosses = ById()
    with pytest.raises(ConfigError, match=r"crosses: its rows are .*vocabulary 'ad' has 80 values, in .*gwen 20"):
        continue_network(network, shop.late, earlier)
    same_ids = build(settings, shop.early.schema)
    same_ids.crosses = ById()
    continue_network(same_ids, shop.early, earlier)


def test_data_that_were_not_prepared_on_the_checkpoint_are_refused(shop: Shop, tmp_path: Path) -> None:
    settings, earlier = config(GWEN).model, shop.earlier["gwen"]
    assert not isinstance(settings, QscoreConfig)
    data = late(shop.raw, tmp_path / "scratch", None)
    with pytest.raises(
        ConfigError, match=r"scratch: context field 'hour' is not that of .*gwen, on which the data must"
    ):
        continue_network(build(settings, data.schema), data, earlier)
    brands, known = (each.vocabularies["brand"].values for each in (shop.late, shop.early))
    fewer = Vocabulary(brands[brands != known[0]])
    lacking = replace(shop.late, vocabularies=shop.late.vocabularies | {"brand": fewer})
    with pytest.raises(ConfigError, match=r"late: vocabulary 'brand' lacks 'bbb0' of .*gwen, on which the data must"):
        continue_network(build(settings, shop.late.schema), lacking, earlier)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (GWEN | {"hidden": [9]}, r"^mlp.layers.0.weight is \[9, \d+\], in .*gwen \[8, \d+\]$"),
        (GWEN | {"position_bias": False}, r"^only .*gwen has a parameter 'position.weight': not the same network$"),
        (GWEN | {"activation": "relu"}, r"^only .*gwen has a parameter 'mlp.activations.0.dice"),
        (GWEN | {"hidden": [8, 5]}, r"^only this configuration has a parameter 'mlp.activations.1.dice"),
        (GWEN | {"embedding": 4}, r"^arena.weight is \[\d+, 4\], in .*gwen \[\d+, 3\]$"),
    ],
)
def test_another_network_is_refused(shop: Shop, model: dict[str, Any], message: str) -> None:
    settings = config(model).model
    assert not isinstance(settings, QscoreConfig)
    with pytest.raises(ConfigError, match=message):
        continue_network(build(settings, shop.late.schema), shop.late, shop.earlier["gwen"])


def test_another_kind_and_the_same_folder_are_refused(shop: Shop, tmp_path: Path) -> None:
    earlier = shop.earlier["din"]
    with pytest.raises(ConfigError, match=r"^model.kind is 'gwen', .*din is a 'din'$"):
        require_continuable(config(GWEN), earlier, [tmp_path])
    with pytest.raises(ConfigError, match=r"din is the checkpoint to continue from, .*choose another --out$"):
        require_continuable(config(DIN), earlier, [tmp_path, earlier.folder / "../din"])
    require_continuable(config(DIN), earlier, [tmp_path])


def remove_vocabulary(folder: Path) -> None:
    (folder / "vocabulary/ad.npy").unlink()


def another_vocabulary(folder: Path) -> None:
    Vocabulary.of([1, 2]).save(folder / "vocabulary/ad.npy")


def no_vocabularies(folder: Path) -> None:
    shutil.rmtree(folder / "vocabulary")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_vocabulary, r"din/vocabulary: .*field 'ad' needs vocabulary 'ad', which is not there$"),
        (another_vocabulary, r"din/vocabulary: .*field 'ad' has size 22, its vocabulary 4$"),
        (no_vocabularies, r"din/vocabulary: not the vocabularies that .*din was trained with: field 'city'"),
    ],
)
def test_vocabularies_that_do_not_fit_are_refused(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copy)
    with pytest.raises(ConfigError, match=message):
        base_of(open_checkpoint(copy))


def test_moments_that_do_not_fit_are_refused(shop: Shop, copy: Path) -> None:
    settings = config(DIN).model
    assert not isinstance(settings, QscoreConfig)
    network, earlier = build(settings, shop.late.schema), open_checkpoint(copy)
    moved = continue_network(network, shop.late, earlier)
    state = torch.load(copy / "last.pt", weights_only=True)
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1, 2)
    torch.save(state, copy / "last.pt")
    with pytest.raises(ConfigError, match=r"last.pt: exp_avg of .* is \[1, 2\], which does not fit its weights$"):
        continue_moments(optimizer_of(network), network, earlier, moved)
    fewer = torch.optim.AdamW([network.arena.weight])
    with pytest.raises(ConfigError, match=r"last.pt: has moments of \d+ parameters, the network has 1$"):
        continue_moments(fewer, network, earlier, moved)
    (copy / "last.pt").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"last.pt: holds no moments to continue with: "):
        continue_moments(optimizer_of(network), network, earlier, moved)
    (copy / "last.pt").unlink()
    with pytest.raises(ConfigError, match=r"last.pt: cannot be read: No such file.*a finished run is needed"):
        identity(config(DIN), earlier)
