"""The bundle opens, holds what was prepared and trained, and replays; what does not fit leaves nothing behind."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest
import torch

from bundle.bitmap import unpack
from bundle.cell_files import check_cells
from bundle.folder import Bundle, open_bundle
from bundle.golden import load_golden
from bundle.manifest import FixedPosition, Manifest
from bundle.schema import FeatureSchema, HistorySpec
from export.assemble import (
    FunnelSettings,
    Trained,
    ad_vectors,
    assemble,
    posting_fields,
    proof_split,
    quality,
)
from export.parity import GOLDEN_TOLERANCE, ParityError
from export.request_graph import fixed_position
from models.checkpoint import Checkpoint, open_checkpoint
from models.config import ConfigError
from models.networks.dqm import Dqm
from tests.market import SPEC, Market
from tests.models.world import SCHEMA


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return open_bundle(exported)


@pytest.fixture(scope="module")
def manifest(bundle: Bundle) -> Manifest:
    return bundle.manifest


def test_the_bundle_is_whole(bundle: Bundle, exported: Path, market: Market) -> None:
    assert bundle.id == exported.name == "tiny"
    assert bundle.manifest.catalogue.ads == len(bundle.ads.index) == SPEC.ads
    assert bundle.manifest.features == market.data.schema
    assert [path.name for path in exported.parent.iterdir()] == ["tiny"], "no temporary folder is left"


def test_arrays_are_those_of_the_prepared_catalogue(bundle: Bundle, trained: Trained) -> None:
    prepared, order = trained.data.ads, bundle.ads.index.places
    np.testing.assert_array_equal(bundle.ads.index.values, prepared.index.values)
    np.testing.assert_array_equal(bundle.ads.fields, prepared.fields[order])
    np.testing.assert_array_equal(bundle.ads.numbers, prepared.numbers[order])
    np.testing.assert_array_equal(bundle.ads.bids, prepared.bids[order])
    np.testing.assert_array_equal(bundle.ads.qscores, trained.qscore.qscore().scores[order])
    for name, vocabulary in trained.data.vocabularies.items():
        np.testing.assert_array_equal(bundle.encoder.vocabularies[name].values, vocabulary.values)


def test_rows_are_in_the_order_of_cells(bundle: Bundle, manifest: Manifest) -> None:
    assert manifest.stages.retrieval.cells == len(bundle.cells.sizes) > 20
    bundle.ads.index.check(bundle.folder)
    check_cells(bundle.folder, bundle.cells, bundle.ads.worth(slice(None)))
    vectors = bundle.ads.vectors.floats(slice(2, None))
    means = np.repeat(bundle.cells.centroids, bundle.cells.sizes, axis=0)
    inside, overall = ((vectors - each).var() for each in (means, vectors.mean(axis=0)))
    assert inside < overall / 4, "ads of a cell lie near each other"


def test_the_position_assumed_online_is_stated(manifest: Manifest, trained: Trained) -> None:
    din = trained.finerank.network()
    assert din.position is not None
    assert din.position.weight[0] != din.position.weight[1], "it was trained"
    assert manifest.stages.finerank.position == FixedPosition(
        position=0, bias=float(din.position.weight.detach()[0, 0])
    )
    assert fixed_position(trained.prerank.network()) is None


def test_bids_are_the_marketplaces_own(bundle: Bundle, market: Market) -> None:
    ads = pl.read_parquet(market.raw / "ads.parquet")
    rows = bundle.ads.index.ids_of(ads["ad_id"].to_numpy())
    np.testing.assert_allclose(bundle.ads.bids[rows], ads["bid"].to_numpy(), rtol=1e-6)
    assert bundle.manifest.catalogue.has_bids


def test_filters_hold_the_raw_values(bundle: Bundle, market: Market) -> None:
    assert bundle.manifest.catalogue.filters == ("brand", "category", "price_level")
    ads = pl.read_parquet(market.raw / "ads.parquet")
    rows = bundle.ads.index.ids_of(ads["ad_id"].to_numpy())
    for name, stored in bundle.filters.items():
        for value in ads[name].unique().to_list():
            wanted = rows[(ads[name] == value).to_numpy()]
            assert np.flatnonzero(unpack(stored.union([value]), bundle.ads.index.size)).tolist() == sorted(wanted)


def test_targeting_is_that_of_the_ads(bundle: Bundle, market: Market) -> None:
    assert bundle.manifest.catalogue.targeting == ("region", "scene")
    ads = pl.read_parquet(market.raw / "ads.parquet")
    rows = bundle.ads.index.ids_of(ads["ad_id"].to_numpy())
    for field, column in (("scene", "scenes"), ("region", "regions")):
        targets = ads[column].to_list()
        for value in (*{each for listed in targets for each in listed}, "never seen", None):
            wanted = [row for row, listed in zip(rows.tolist(), targets, strict=True) if not listed or value in listed]
            found = bundle.targeting[field].union([value])
            assert np.flatnonzero(unpack(found, bundle.ads.index.size)).tolist() == sorted(wanted)
        assert any(targets)
        assert not all(targets)


def test_ad_vectors_give_dqms_logits(bundle: Bundle, trained: Trained) -> None:
    dqm = trained.prerank.network()
    assert isinstance(dqm, Dqm)
    exact = ad_vectors(dqm, trained.data)[bundle.ads.index.places]
    np.testing.assert_allclose(bundle.ads.vectors.floats(slice(None)), exact, atol=np.abs(exact).max() / 128)
    for row in load_golden(bundle.folder):
        given = bundle.ads.index.places[row.ads]
        ids, numbers = trained.data.ads.fields[given], trained.data.ads.numbers[given]
        with torch.no_grad():
            common = row.common
            query, offset = dqm.query_of(
                torch.from_numpy(common.user).unsqueeze(0),
                torch.from_numpy(common.user_numbers).unsqueeze(0),
                torch.from_numpy(common.context).unsqueeze(0),
                torch.from_numpy(common.context_numbers).unsqueeze(0),
                {name: torch.from_numpy(each).unsqueeze(0) for name, each in common.histories.items()},
            )
            vectors = dqm.ad_vectors(torch.from_numpy(ids).long(), torch.from_numpy(numbers))
            expected = (vectors @ query[0] + offset[0]).numpy()
        found = bundle.ads.vectors.products(row.ads, row.query) + row.offset
        np.testing.assert_allclose(found, expected, atol=np.abs(exact).max() / 128 * np.abs(row.query).sum())


def test_golden_rows_replay(bundle: Bundle, manifest: Manifest) -> None:
    rows = load_golden(bundle.folder)
    assert len(rows) == manifest.golden.requests == 8
    assert manifest.golden.logit_tolerance == manifest.golden.query_tolerance == GOLDEN_TOLERANCE
    specs = manifest.stages.prerank.query, manifest.stages.finerank.graph
    query, fine = (ort.InferenceSession(str(bundle.folder / spec.file)) for spec in specs)
    for row in rows:
        feeds: dict[str, Any] = dict(row.common.feeds()) | {
            "ads": bundle.ads.fields[row.ads].astype(np.int64),
            "ad_numbers": bundle.ads.numbers[row.ads],
        }
        vector, offset = query.run(None, {each.name: feeds[each.name] for each in specs[0].inputs})
        (logits,) = fine.run(None, {each.name: feeds[each.name] for each in specs[1].inputs})
        np.testing.assert_allclose(vector, row.query, atol=GOLDEN_TOLERANCE)
        np.testing.assert_allclose(offset, row.offset, atol=GOLDEN_TOLERANCE)
        np.testing.assert_allclose(logits, row.logits, atol=GOLDEN_TOLERANCE)


def test_interfaces_in_the_manifest_are_the_graphs_own(bundle: Bundle, manifest: Manifest) -> None:
    for spec in (manifest.stages.prerank.query, manifest.stages.finerank.graph):
        session = ort.InferenceSession(str(bundle.folder / spec.file))
        assert [(each.name, each.shape) for each in spec.inputs] == [
            (each.name, tuple(each.shape)) for each in session.get_inputs()
        ]
        assert [each.name for each in spec.outputs] == [each.name for each in session.get_outputs()]


def test_stages_have_the_sizes_asked_for(manifest: Manifest) -> None:
    stages = manifest.stages
    assert (stages.retrieval.keep, stages.qscore.keep, stages.prerank.keep, stages.finerank.keep) == (120, 80, 40, 20)
    assert (stages.retrieval.interests, stages.retrieval.per_interest) == (3, 10)
    assert (stages.prerank.model, stages.finerank.model, stages.prerank.dimension) == ("dqm", "din", 7)


def test_postings_are_of_the_histories_fields_but_the_ad_itself(bundle: Bundle, manifest: Manifest) -> None:
    assert manifest.stages.retrieval.posting_fields == ("category", "brand")
    for name, postings in bundle.postings.items():
        column = manifest.features.ad.columns_of(name).start
        listed = np.repeat(np.arange(len(postings.offsets) - 1), np.diff(postings.offsets))
        np.testing.assert_array_equal(bundle.ads.fields[postings.rows, column], listed)
        assert sorted(postings.rows.tolist()) == list(range(2, SPEC.ads + 2)), "every ad once"


def test_posting_fields_of_several_histories_come_once() -> None:
    histories = (
        HistorySpec(name="clicks", fields=("ad", "tags"), max_length=5),
        HistorySpec(name="seen", fields=("tags", "price"), max_length=5, events=("impression",)),
    )
    schema: FeatureSchema = SCHEMA.model_copy(update={"histories": histories})
    assert posting_fields(schema) == ("tags", "price")


def test_quality_is_that_of_the_test_split(manifest: Manifest, trained: Trained) -> None:
    assert set(manifest.quality) == {"din", "dqm", "qscore"}
    for checkpoint in (trained.finerank, trained.prerank, trained.qscore):
        found = manifest.quality[checkpoint.config.model.kind]
        assert {"auc", "gauc", "logloss"} <= found.keys()
        assert {f"test.{name}": value for name, value in found.items()}.items() <= checkpoint.metrics.items()


def test_without_a_test_split_no_quality_is_claimed(trained: Trained) -> None:
    metrics = {name: value for name, value in trained.finerank.metrics.items() if not name.startswith("test.")}
    found = quality(replace(trained, finerank=replace(trained.finerank, metrics=metrics)))
    assert found.keys() == {"dqm", "qscore"}


def test_where_it_comes_from(manifest: Manifest, market: Market) -> None:
    assert manifest.made.data == f"marketplace {market.data.prepared.fingerprint[:12]}"
    assert manifest.made.seed == 1
    assert manifest.made.versions["torch"].startswith(torch.__version__.partition("+")[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest.made.time)


def test_some_users_are_carried(bundle: Bundle, manifest: Manifest, market: Market) -> None:
    assert bundle.users is not None
    ids = list(bundle.users.ids())
    everyone = np.load(market.data.folder / "users/ids.npy").tolist()
    assert len(ids) == manifest.users == 25
    assert {each.encode() for each in ids} <= set(everyone)
    assert ids[0].encode() == everyone[0]
    assert ids[-1].encode() == everyone[-1], "they are spread over all users"


def test_golden_requests_come_from_the_latest_split(market: Market) -> None:
    assert proof_split(market.data) == "test"
    empty = market.data.prepared.splits["test"].model_copy(update={"impressions": 0})
    splits = market.data.prepared.splits | {"test": empty}
    assert proof_split(replace(market.data, prepared=market.data.prepared.model_copy(update={"splits": splits}))) == (
        "valid"
    )


def test_an_existing_bundle_is_refused_and_left_alone(exported: Path, trained: Trained) -> None:
    before = (exported / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError, match="tiny exists, and bundles are never changed"):
        assemble(trained, exported.parent, "tiny", FunnelSettings())
    assert (exported / "manifest.json").read_bytes() == before


def test_checkpoints_of_other_data_are_refused(trained: Trained, tmp_path: Path) -> None:
    def elsewhere(checkpoint: Checkpoint) -> Checkpoint:
        return replace(checkpoint, data_fingerprint="0" * 64)

    for other, old in (
        (replace(trained, finerank=elsewhere(trained.finerank)), trained.finerank),
        (replace(trained, prerank=elsewhere(trained.prerank)), trained.prerank),
        (replace(trained, qscore=elsewhere(trained.qscore)), trained.qscore),
    ):
        with pytest.raises(ConfigError, match="was trained on data 000000000000") as caught:
            assemble(other, tmp_path / "out", "x", FunnelSettings())
        assert str(old.folder) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_checkpoints_in_the_wrong_place_are_refused(trained: Trained, tmp_path: Path) -> None:
    for wrong, said in (
        (replace(trained, prerank=trained.finerank), "holds a din; a network of two towers is needed there"),
        (replace(trained, prerank=trained.qscore), "a Qscore is a table, it has no network"),
        (replace(trained, finerank=trained.qscore), "a Qscore is a table, it has no network"),
        (replace(trained, qscore=trained.prerank), "holds a dqm, a qscore is needed there"),
    ):
        with pytest.raises(ConfigError, match=said):
            assemble(wrong, tmp_path / "out", "x", FunnelSettings())
    assert not (tmp_path / "out").exists()


def test_a_failing_export_leaves_nothing(trained: Trained, tmp_path: Path) -> None:
    """Weights that are no numbers: the graphs are written, and the proof fails."""
    folder = Path(shutil.copytree(trained.finerank.folder, tmp_path / "din"))
    state = torch.load(folder / "best.pt", weights_only=True)
    state["mlp.out.bias"].fill_(torch.nan)
    torch.save(state, folder / "best.pt")
    with pytest.raises(ParityError, match="differ by nan in pCTR"):
        assemble(replace(trained, finerank=open_checkpoint(folder)), tmp_path / "out", "x", FunnelSettings())
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
