"""Tables of outcomes of a simulated experiment, in the shape in which the collector writes them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from control.state import Experiment
from outcomes.tables import IMPRESSIONS, REQUESTS

NAME = "try"
START_S = 1_000_000.0
START = int(START_S * 1000)


def experiment(**changes: object) -> Experiment:
    """Half of the users in the arm `new`, the other half in the control."""
    values = {"name": NAME, "salt": "s", "arms": [{"name": "new", "weight": 0.5}], "started_at": START_S}
    return Experiment.model_validate(values | changes)


def request(user: str, arm: str | None = None, **changes: object) -> dict[str, object]:
    """One row of requests, 1 s after the start, of 10 ms."""
    values = {
        "request_id": f"r-{user}",
        "time_ms": START + 1000,
        "user_id": user,
        "version": 1,
        "arms": ["other:control"] + ([f"{NAME}:{arm}"] if arm else []),
        "bundle_id": "b",
        "status": 200,
        "total_ms": 10.0,
        "degraded": False,
    }
    return values | changes


def impression(user: str, arm: str | None = None, **changes: object) -> dict[str, object]:
    """One row of impressions, not clicked, pCTR 0.1 and bid 2."""
    values = {
        "request_id": f"r-{user}",
        "time_ms": START + 2000,
        "user_id": user,
        "arms": ["other:control"] + ([f"{NAME}:{arm}"] if arm else []),
        "bundle_id": "b",
        "ad_id": "a",
        "position": 1,
        "pctr": 0.1,
        "bid": 2.0,
        "clicked": False,
        "click_time_ms": None,
    }
    return values | changes


def tables(
    requests: list[dict[str, object]], impressions: list[dict[str, object]]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both tables."""
    return pl.DataFrame(requests, schema=REQUESTS), pl.DataFrame(impressions, schema=IMPRESSIONS)


def crowd(
    users: Mapping[str, int],
    ctr: Mapping[str, float],
    *,
    pctr: float | Mapping[str, float] = 0.1,
    bid: Mapping[str, float] | None = None,
    slow: Mapping[str, float] | None = None,
    failed: Mapping[str, float] | None = None,
    past: bool = False,
    seed: int = 1,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tables of so many users by arm: two requests of three impressions each, users' own click rates around `ctr`, and
    the same `pctr` of all impressions, or of those of an arm.
    Shares `slow` of requests take 100 ms instead of 10, shares `failed` answer 500. With a past, 30 impressions of each
    user lie before the start."""
    random = np.random.default_rng(seed)
    requests, impressions = [], []
    for arm, count in users.items():
        own = random.beta(ctr[arm] * 5, (1 - ctr[arm]) * 5, (count, 1)) if ctr[arm] else np.zeros((count, 1))
        who = [f"{arm}-{i}" for i in range(count)]
        requests.append(_requests(who * 2, arm, (slow or {}).get(arm, 0.0), (failed or {}).get(arm, 0.0), random))
        clicked = (random.random((count, 6)) < own).T.ravel()
        promised = pctr if isinstance(pctr, float) else pctr[arm]
        impressions.append(_impressions(who * 6, clicked, arm, pctr=promised, bid=(bid or {}).get(arm, 2.0)))
        if past:
            before = (random.random((count, 30)) < own).T.ravel()
            impressions.append(_impressions(who * 30, before, None, time_ms=START - 5000))
    return pl.concat(requests), pl.concat(impressions)


def _requests(who: list[str], arm: str, slow: float, failed: float, random: np.random.Generator) -> pl.DataFrame:
    n = len(who)
    drawn = pl.DataFrame(
        {
            "user_id": who,
            "status": np.where(random.random(n) < failed, 500, 200),
            "total_ms": np.where(random.random(n) < slow, 100.0, 10.0),
        }
    )
    return _filled(drawn, request("", arm), REQUESTS)


def _impressions(
    who: list[str],
    clicked: npt.NDArray[np.bool_],
    arm: str | None,
    **changes: object,
) -> pl.DataFrame:
    return _filled(pl.DataFrame({"user_id": who, "clicked": clicked}), impression("", arm, **changes), IMPRESSIONS)


def _filled(drawn: pl.DataFrame, row: dict[str, object], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """`drawn`, with what `row` says in its other columns."""
    rest = pl.DataFrame([row], schema=schema).drop(drawn.columns)
    return drawn.join(rest, how="cross").select([pl.col(name).cast(kind) for name, kind in schema.items()])
