"""What a shadow was worth beside the bundle that was live."""

import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models import metrics
from outcomes import experiment
from outcomes.shadow import described, judge
from outcomes.tables import SHADOW, write_table
from tests.outcomes.feeding import NOON


def rows(users: int, better: float = 0.0, bundle: str = "b2", at_ms: int = NOON, seed: int = 1) -> pl.DataFrame:
    """20 impressions of each user. The shadow knows `better` more of the taste than the live bundle."""
    draw = np.random.default_rng(seed)
    n = 20 * users
    taste = draw.normal(size=n)
    return pl.DataFrame(
        {
            "request_id": [f"r{i // 5}" for i in range(n)],
            "time_ms": [at_ms + i for i in range(n)],
            "user_id": [f"u{i % users}" for i in range(n)],
            "bundle_id": ["b1"] * n,
            "shadow_bundle_id": [bundle] * n,
            "ad_id": ["7"] * n,
            "pctr": 1 / (1 + np.exp(2 - 0.3 * taste - draw.normal(size=n))),
            "shadow_pctr": 1 / (1 + np.exp(2 - (0.3 + better) * taste - draw.normal(size=n))),
            "clicked": draw.random(n) < 1 / (1 + np.exp(2 - taste)),
        },
        schema=SHADOW,
    )


def test_both_are_measured_on_the_same_impressions() -> None:
    table = rows(80, better=1.0)
    broken = table.head(2).with_columns(
        time_ms=pl.lit(NOON + 10**6),
        pctr=pl.Series([None, 0.5]),
        shadow_pctr=pl.Series([0.5, float("nan")]),
        clicked=pl.lit(value=True),
    )
    (found,) = judge(pl.concat([table, broken]), replicates=200)
    clicked, users = table["clicked"].to_numpy(), table["user_id"].to_numpy()
    for measure, column in (("live", "pctr"), ("shadow", "shadow_pctr")):
        scores = table[column].to_numpy()
        assert getattr(found.auc, measure) == pytest.approx(metrics.auc(clicked, scores))
        assert getattr(found.gauc, measure) == pytest.approx(metrics.gauc(clicked, scores, users).value)
    assert (found.impressions, found.unscored, found.users, found.clicks) == (1600, 2, 80, clicked.sum())
    assert found.informative_users == metrics.gauc(clicked, table["pctr"].to_numpy(), users).users
    assert found.gauc.low is not None
    assert found.gauc.low > 0, "it knows more"
    assert found.note == ""
    assert (found.from_ms, found.to_ms) == (NOON, NOON + 10**6)


def test_each_pair_of_bundles_is_judged_by_itself_and_too_few_users_have_no_interval() -> None:
    first, second = judge(pl.concat([rows(30, bundle="b3", at_ms=NOON + 10**6), rows(10)]), replicates=100)
    assert (first.shadow_bundle_id, second.shadow_bundle_id) == ("b2", "b3")
    assert first.gauc.difference is not None
    assert (first.gauc.low, first.gauc.high) == (None, None)
    assert first.note.endswith("20 are needed for an interval")
    assert described(first)[-1] == first.note
    assert second.gauc.low is not None


def test_nothing_that_both_scored_has_dashes() -> None:
    (found,) = judge(rows(3).with_columns(shadow_pctr=pl.lit(None, pl.Float64)), replicates=100)
    assert (found.impressions, found.unscored, found.auc.live) == (0, 60, None)
    assert any(line.split() == ["GAUC", "-", "-", "-", "[-,", "-]"] for line in described(found))


def test_the_command_prints_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["shadow", "--outcomes", str(tmp_path), "--replicates", "100"]
    assert experiment.main(asked) == 1
    assert "holds no tables of `adrank outcomes`" in capsys.readouterr().err
    (tmp_path / "requests").mkdir()
    assert experiment.main(asked) == 0
    assert "no impression was scored by a shadow" in capsys.readouterr().out
    write_table(tmp_path, "shadow", NOON, rows(30))
    assert experiment.main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "b2 in the shadow of b1, 2033-11-23 12:00 to 2033-11-23 12:00 UTC"
    assert lines[1].startswith("600 impressions of 30 users, ")
    assert lines[3].split() == ["live", "shadow", "difference", "95%", "interval"]
    assert lines[5].startswith("GAUC  0.")
    assert experiment.main([*asked, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["shadows"]
    assert found["gauc"]["low"] < found["gauc"]["difference"] < found["gauc"]["high"]
    noon = "2033-11-23T12:00"
    for window, impressions in (
        (["--since", noon], 600),
        (["--since", f"{noon}:00.500"], 100),
        (["--since", f"{noon}:00.500+01:00"], 600),
        (["--since", str(NOON + 599)], 1),
    ):
        assert experiment.main([*asked, "--json", *window]) == 0
        (found,) = json.loads(capsys.readouterr().out)["shadows"]
        assert found["impressions"] == impressions, window
    assert experiment.main([*asked, "--since", "2033-11-23T12:01"]) == 0
    assert "no impression from 2033-11-23 12:01 UTC on was scored by a shadow" in capsys.readouterr().out
    write_table(tmp_path, "shadow", NOON, rows(30, at_ms=round(time.time() * 1000) - 25 * 3_600_000))
    for days, shown in (("1", "no impression from "), ("1.1", "b2 in the shadow of b1")):
        assert experiment.main([*asked, "--days", days]) == 0
        assert capsys.readouterr().out.startswith(shown)
    for wrong, why in ((["--since", "noon"], "'noon' is neither"), (["--days", "-1"], "'-1' is no number of days")):
        with pytest.raises(SystemExit):
            experiment.main([*asked, *wrong])
        assert why in capsys.readouterr().err
    with pytest.raises(SystemExit):
        experiment.main([*asked[:3], "--replicates", "10"])
    assert "'10' is no number from 100 to 100,000" in capsys.readouterr().err
