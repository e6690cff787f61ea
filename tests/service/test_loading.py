"""A bundle that is wrong in any way is refused, and the message names the file and the numbers."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from bundle.errors import BundleError, ContractError, GoldenError, IntegrityError, ManifestError, SignatureError
from bundle.manifest import MANIFEST, FileEntry, read_manifest
from bundle.signature import make_key, sign
from service.app import make_store
from service.errors import SettingsError
from service.loading import WARM_UP_RUNS, load_bundle
from service.registry import Registry
from tests.service.graphs import finerank_graph
from tests.service.plans import plan_of_one
from tests.service.world import Recipe, make_world, settings_for


def reseal(folder: Path, name: str) -> None:
    """Enter the file as it now is, so that only what it says is wrong, not its checksum."""
    import hashlib

    content = (folder / name).read_bytes()
    manifest = read_manifest(folder)
    files = manifest.files | {name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))}
    (folder / MANIFEST).write_text(manifest.model_copy(update={"files": files}).model_dump_json())


def check_refused(folder: Path, kind: type[Exception], *words: str) -> None:
    with pytest.raises(kind) as caught:
        load_bundle(folder, settings_for(folder))
    for word in words:
        assert word in str(caught.value), str(caught.value)


def change(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Edit an array file and enter it anew."""

    def apply(folder: Path) -> None:
        np.save(folder / name, edit(np.load(folder / name)))
        reseal(folder, name)

    return apply


def test_a_good_bundle_is_proved(folder: Path) -> None:
    loaded = load_bundle(folder, settings_for(folder))
    assert loaded.proof.requests == 2
    assert loaded.proof.logit_deviation <= 1e-5
    assert loaded.estimates.of("finerank", 30) > 0


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    content = bytearray((folder / "ads/bids.npy").read_bytes())
    content[-1] ^= 1
    (folder / "ads/bids.npy").write_bytes(content)
    check_refused(folder, IntegrityError, "ads/bids.npy", "sha256")


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    text = (folder / MANIFEST).read_text().replace('"format": 2', '"format": 1')
    (folder / MANIFEST).write_text(text)
    check_refused(folder, ManifestError, MANIFEST, "format")


def test_no_bundle_is_refused(tmp_path: Path) -> None:
    check_refused(tmp_path / "nothing", ManifestError, "nothing/manifest.json")


def test_other_inputs_than_stated_are_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path, Recipe(input_dtype="float32"))
    check_refused(folder, ContractError, "query.onnx", "'user' is tensor(int64)", "float32")


def test_other_axes_than_stated_are_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"length_clicks",\n', "50,\n"))
    check_refused(folder, ContractError, "query.onnx", "history_clicks", "[50, 2]")


def test_an_input_that_is_not_stated_is_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    model = finerank_graph()
    model.graph.input.append(onnx.helper.make_tensor_value_info("weather", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, folder / "finerank.onnx")
    reseal(folder, "finerank.onnx")
    check_refused(folder, ContractError, "finerank.onnx", "weather")


def test_an_input_the_service_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    model = finerank_graph()
    model.graph.input.append(onnx.helper.make_tensor_value_info("weather", onnx.TensorProto.FLOAT, [1]))
    onnx.save(model, folder / "finerank.onnx")
    text = (folder / MANIFEST).read_text()
    ads = '{\n            "name": "ads",'
    assert ads in text
    weather = '{"name": "weather", "dtype": "float32", "shape": [1]},\n          ' + ads
    (folder / MANIFEST).write_text(text.replace(ads, weather))
    reseal(folder, "finerank.onnx")
    check_refused(folder, ContractError, "finerank.onnx", "reads ['weather']")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    (folder / "query.onnx").write_bytes(b"not a graph")
    reseal(folder, "query.onnx")
    check_refused(folder, ContractError, "query.onnx", "not a graph that runs here")


def test_golden_rows_that_differ_are_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path, Recipe(golden_shift=0.01))
    check_refused(folder, GoldenError, "finerank.onnx", "golden row 0", "0.01", "1e-05")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change("ads/bids.npy", lambda a: np.where(np.arange(len(a)) == 5, np.nan, a)), ["bids.npy", "finite"]),
        (change("ads/bids.npy", lambda a: -a), ["bids.npy", "negative"]),
        (change("ads/bids.npy", lambda a: a[:-1]), ["bids.npy", "[301]"]),
        (change("ads/qscores.npy", lambda a: np.where(np.arange(len(a)) == 5, np.inf, a)), ["qscores.npy", "finite"]),
        (change("ads/qscores.npy", lambda a: a[::-1]), ["cells", "is worth more than the one before it"]),
        (change("ads/rows.npy", lambda a: np.roll(a, 1)), ["ads", "do not lead there and back"]),
        (change("ads/vectors.npy", lambda a: a[:, :3]), ["vectors.npy", "int8[302, 3]", "int8[302, 4]"]),
        (change("ads/scales.npy", lambda a: a.astype(np.float64)), ["scales.npy", "float64[302]"]),
        (change("cells/centroids.npy", lambda a: a[:-1]), ["centroids.npy", "float32[9, 4]", "float32[10, 4]"]),
        (change("cells/offsets.npy", lambda a: a + 1), ["offsets.npy", "from 3 to 303"]),
        (change("cells/levels.npy", lambda a: a - (np.arange(64) == 5)), ["levels.npy", "cell 0 has"]),
        (change("cells/thresholds.npy", lambda a: a[::-1]), ["thresholds.npy", "must not rise"]),
        (change("ads/fields.npy", lambda a: a + 50), ["fields.npy", "outside"]),
        (change("postings/category.offsets.npy", lambda a: a[:-1]), ["category.offsets.npy", "8 are needed"]),
        (change("postings/category.rows.npy", lambda a: a + 1000), ["category.rows.npy", "only 2..301"]),
        (change("filters/brand.places.npy", lambda a: a + 1000), ["brand.places.npy", "0..10"]),
    ],
)
def test_arrays_that_cannot_be_right_are_refused(
    tmp_path: Path, edit: Callable[[Path], None], words: list[str]
) -> None:
    folder = make_world(tmp_path)
    edit(folder)
    check_refused(folder, ContractError, *words)


def test_fewer_golden_rows_than_stated_are_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    text = (folder / MANIFEST).read_text().replace('"requests": 2', '"requests": 3')
    (folder / MANIFEST).write_text(text)
    check_refused(folder, ContractError, "golden.npz", "2 requests, the manifest says 3")


def test_a_history_limit_below_what_the_bundle_reads_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="history_limit is 10, a history of world reads 20 events"):
        load_bundle(folder, settings_for(folder, history_limit=10))


def test_an_unsigned_bundle_is_refused_where_keys_are_set(tmp_path: Path) -> None:
    folder, public = make_world(tmp_path), make_key(tmp_path / "key.pem")
    with pytest.raises(SignatureError, match="is not signed, and one of 1 keys must have signed it"):
        load_bundle(folder, settings_for(folder, bundle_keys=public))
    sign(folder, tmp_path / "key.pem")
    assert load_bundle(folder, settings_for(folder, bundle_keys=public)).id == "world"


def test_a_key_that_is_none_stops_the_start(folder: Path) -> None:
    with pytest.raises(ValidationError, match="has 3 bytes, an Ed25519 public key has 32"):
        settings_for(folder, bundle_keys="AAAA")


def test_a_refused_bundle_leaves_the_old_one(folder: Path, tmp_path: Path) -> None:
    registry = Registry()
    registry.publish(plan_of_one(load_bundle(folder, settings_for(folder))))
    bad = make_world(tmp_path, Recipe(golden_shift=1.0, bundle_id="bad"))
    with pytest.raises(BundleError):
        registry.publish(plan_of_one(load_bundle(bad, settings_for(bad))))
    assert registry.live.id == "world"
    shutil.rmtree(bad)
    good = make_world(tmp_path, Recipe(bundle_id="next"))
    registry.publish(plan_of_one(load_bundle(good, settings_for(good))))
    assert registry.live.id == "next"


def test_users_of_the_embedded_store_stay_while_bundles_change(folder: Path) -> None:
    """A request may wait for its user while another bundle takes the place of the one it began with."""
    settings, registry = settings_for(folder), Registry()
    loaded = load_bundle(folder, settings)
    registry.publish(plan_of_one(loaded))
    store = make_store(settings, registry)
    before = asyncio.run(store.get("anna"))
    assert before is not None
    registry.publish(plan_of_one(replace(loaded, bundle=replace(loaded.bundle, users=None))))
    assert asyncio.run(store.get("anna")) == before


def test_there_is_a_pause_before_each_step(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    steps: list[int] = []
    loaded = load_bundle(folder, settings_for(folder), pause=lambda: steps.append(1))
    sessions, opening = 1 + len(loaded.ladder.rungs), 1
    assert len(steps) == opening + sessions + loaded.proof.requests + WARM_UP_RUNS * len(loaded.ladder.rungs)
