"""`adrank evaluate` from the outside: the figures of training again, and the funnel's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from export.assemble import Trained
from models.checkpoint import Checkpoint, open_checkpoint
from models.data.batches import batches
from models.evaluate import main
from models.networks.cold import Cold
from models.train import train_one
from tests.market import Market, make_config


def evaluate(checkpoint: Checkpoint | Path, market: Market, out: Path, *more: str, prepared: Path | None = None) -> int:
    folder = checkpoint if isinstance(checkpoint, Path) else checkpoint.folder
    places = [str(folder), "--prepared", str(prepared or market.data.folder), "--threads", "1", "--json", str(out)]
    return main([*places, *more])


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("adrank evaluate: ")
    return lines[0]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_figures_of_training_again(
    market: Market, trained: Trained, tmp_path: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for checkpoint in (trained.finerank, trained.prerank, trained.qscore):
        assert evaluate(checkpoint, market, tmp_path / "m.json", "--split", split) == 0
        figures = json.loads((tmp_path / "m.json").read_text())
        assert figures.keys() == {name for name in checkpoint.metrics if name.startswith(f"{split}.")}
        assert figures.items() <= checkpoint.metrics.items()
        assert f"{figures[f'{split}.auc']:.4f}" in capsys.readouterr().out


def test_the_default_is_the_test_split(market: Market, trained: Trained, tmp_path: Path) -> None:
    """And the prepared data are found among others in the folder that `adrank train` keeps them in."""
    assert evaluate(trained.qscore, market, tmp_path / "m.json", prepared=market.root) == 0
    assert "test.auc" in json.loads((tmp_path / "m.json").read_text())


def test_the_funnel(market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = ["--funnel", str(trained.prerank.folder), str(trained.qscore.folder), "--requests", "10"]
    assert evaluate(trained.finerank, market, tmp_path / "m.json", *earlier) == 0
    figures = json.loads((tmp_path / "m.json").read_text())
    assert figures["funnel.recall_after_prerank"] == 1, "300 ads all fit into the usual funnel"
    assert (figures["funnel.requests"], figures["funnel.ads"]) == (10, 300)
    sizes = ["--retrieval", "40", "--qscore", "20", "--prerank", "5"]
    assert evaluate(trained.finerank, market, tmp_path / "m.json", *earlier, *sizes) == 0
    figures = json.loads((tmp_path / "m.json").read_text())
    assert 0 <= figures["funnel.recall_after_prerank"] <= 0.5
    assert 0.3 < figures["funnel.ecpm_lost"] <= 1
    assert "test.auc" in figures
    assert f"{figures['funnel.ecpm_lost']:.4f}" in capsys.readouterr().out


def test_what_is_missing_is_named(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.json"
    assert evaluate(tmp_path / "none", market, out) == 2
    assert str(tmp_path / "none/config.json") in refusal(capsys)
    assert evaluate(trained.finerank, market, out, prepared=tmp_path / "nothing") == 2
    assert f"{tmp_path / 'nothing'}: holds no" in refusal(capsys)
    broken = Path(shutil.copytree(market.data.folder, tmp_path / "broken"))
    (broken / "ads/bids.npy").unlink()
    assert evaluate(trained.finerank, market, out, prepared=broken) == 2
    assert str(broken / "ads/bids.npy") in refusal(capsys)
    lost = Path(shutil.copytree(trained.finerank.folder, tmp_path / "lost"))
    (lost / "best.pt").unlink()
    assert evaluate(lost, market, out) == 2
    assert str(lost / "best.pt") in refusal(capsys)
    assert not out.exists()


def test_other_data_are_refused(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(market.data.folder, tmp_path / "other"))
    head = (other / "schema.json").read_text()
    (other / "schema.json").write_text(head.replace(market.data.prepared.fingerprint, "e" * 64))
    assert evaluate(trained.finerank, market, tmp_path / "m.json", prepared=other) == 2
    line = refusal(capsys)
    assert f"{other}: " in line
    assert market.data.prepared.fingerprint[:12] in line


def test_a_table_that_holds_rubbish(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(trained.qscore.folder, tmp_path / "qscore"))
    scores = np.full(len(market.data.ads.fields), np.nan, np.float32)
    np.savez(folder / "qscore.npz", scores=scores, mean=0.1, strength=1.0)
    assert evaluate(folder, market, tmp_path / "m.json") == 2
    assert "split 'test'" in refusal(capsys)


def test_an_earlier_stage_of_the_wrong_kind(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swapped = ["--funnel", str(trained.qscore.folder), str(trained.prerank.folder)]
    assert evaluate(trained.finerank, market, tmp_path / "m.json", *swapped) == 2
    assert str(trained.qscore.folder) in refusal(capsys)


def test_other_pre_rankers(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The funnel's own two towers, and the fine-ranker, are among them by themselves."""
    given = train_gwen(market, tmp_path / "gwen")
    options = ["--funnel", str(trained.prerank.folder), str(trained.qscore.folder), "--requests", "3"]
    options += ["--prerankers", str(given), "--prerank", "20"]
    assert evaluate(trained.finerank, market, tmp_path / "m.json", *options) == 0
    figures = json.loads((tmp_path / "m.json").read_text())
    printed = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(printed) if line.split()[:1] == ["pre-ranker"])
    lines = {line.split()[0]: line.split()[1:] for line in printed[start + 1 :]}
    assert list(lines) == ["tiny-qscore", "tiny-dqm", "tiny-gwen", "tiny-din"]
    for name, (recall, lost, products, _) in lines.items():
        assert f"{figures[f'funnel.{name}.recall_after_prerank']:.4f}" == recall
        assert f"{figures[f'funnel.{name}.ecpm_lost']:.4f}" == lost
        assert f"{figures[f'funnel.{name}.multiply_adds']:,.0f}" == products
        assert figures[f"funnel.{name}.ms"] > 0


def test_pre_rankers_need_a_funnel(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(trained.finerank, market, tmp_path / "m.json", "--prerankers", str(trained.prerank.folder)) == 2
    assert "--funnel DQM QSCORE is missing" in refusal(capsys)


def test_by_a_context_field(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(trained.qscore, market, tmp_path / "m.json", "--by", "scene") == 0
    figures = json.loads((tmp_path / "m.json").read_text())
    printed = capsys.readouterr().out
    for scene in ("feed", "search", "detail"):
        assert figures[f"test.scene.{scene}.impressions"] > 100
        assert f"{figures[f'test.scene.{scene}.auc']:.4f}" in printed
    assert evaluate(trained.qscore, market, tmp_path / "m.json", "--by", "region") == 2
    assert refusal(capsys).endswith("'region' is no categorical context field, known: scene")


def test_gates_are_of_a_cold(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("tiny-cold", {"kind": "cold", "embedding": 4, "hidden": [8]}, epochs=1)
    train_one(config, market.data, tmp_path / "cold", seed=1, progress=False)
    assert evaluate(tmp_path / "cold", market, tmp_path / "m.json", "--gates") == 0
    figures = json.loads((tmp_path / "m.json").read_text())
    gates = {name.removeprefix("test.gate."): value for name, value in figures.items() if ".gate." in name}
    assert {"user.city", "context.scene", "history.clicks", "ad.brand", "ad.quality", "cross.clicks"} <= gates.keys()
    network = open_checkpoint(tmp_path / "cold").network()
    assert isinstance(network, Cold)
    sums, rows = dict.fromkeys(gates, 0.0), 0
    with torch.no_grad():
        for batch in batches(market.data, "test", 70):
            rows += len(batch.labels)
            sums = {name: sums[name] + mean * len(batch.labels) for name, mean in network.importance(batch).items()}
    assert gates == pytest.approx({name: total / rows for name, total in sums.items()}, abs=1e-5)
    assert "test.gate.cross.clicks" in capsys.readouterr().out
    assert evaluate(trained.finerank, market, tmp_path / "m.json", "--gates") == 2
    assert "a din has no gates" in refusal(capsys)


def train_gwen(market: Market, folder: Path) -> Path:
    config = make_config("tiny-gwen", {"kind": "gwen", "embedding": 4, "hidden": [8]}, epochs=1)
    train_one(config, market.data, folder, seed=1, progress=False)
    return folder


def test_ads_by_how_often_training_showed_them(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(trained.finerank, market, tmp_path / "m.json", "--cold") == 0
    figures = json.loads((tmp_path / "m.json").read_text())
    sizes = {name: value for name, value in figures.items() if name.startswith("test.shown.") and "impr" in name}
    assert sum(sizes.values()) == figures["test.impressions"]
    shown = capsys.readouterr().out
    assert f"{sizes['test.shown.10-99.impressions']:,.0f}" in shown
    assert f"{figures['test.shown.10-99.auc']:.4f}" in shown
