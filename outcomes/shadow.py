"""The shadow's bundle beside the live one, once clicks came: AUC and GAUC of both on the same impressions."""

import math
import time

import numpy as np
import polars as pl
from pydantic import Field

from outcomes.results import Result
from outcomes.statistics.rankings import LEAST, Change, compare
from outcomes.status import shown, table

ALPHA = 0.05


class Measure(Result):
    """One measure of both bundles on the same impressions; null where those do not say."""

    live: float | None
    shadow: float | None
    difference: float | None
    """Shadow − live."""
    low: float | None
    high: float | None
    """Of the difference: a 95 % interval for one look."""


class ShadowVerdict(Result):
    """What one shadow was worth beside the bundle that was live."""

    bundle_id: str
    """Of the answers."""
    shadow_bundle_id: str
    from_ms: int
    to_ms: int
    """Times of the first and the last impression, Unix milliseconds."""
    impressions: int
    """To which both bundles gave a finite score."""
    unscored: int
    """Further ones, to which one of them did not."""
    clicks: int
    users: int
    informative_users: int
    """With both a click and an impression without one: GAUC is of them."""
    informative_impressions: int
    replicates: int = Field(ge=1)
    auc: Measure
    gauc: Measure
    note: str = ""
    """What keeps an interval from being said."""


def judge(rows: pl.DataFrame, replicates: int = 1000) -> tuple[ShadowVerdict, ...]:
    """For each pair of a live bundle and a shadow in the table `shadow`, in the order of their first impressions."""
    parts = rows.sort("time_ms", maintain_order=True).partition_by("bundle_id", "shadow_bundle_id", maintain_order=True)
    return tuple(_judged(each, replicates) for each in parts)


def _judged(rows: pl.DataFrame, replicates: int) -> ShadowVerdict:
    scored = rows.filter(pl.col("pctr").is_finite() & pl.col("shadow_pctr").is_finite())
    clicked = scored["clicked"].to_numpy()
    live, other = (scored[name].to_numpy() for name in ("pctr", "shadow_pctr"))
    users = scored["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    found = compare(clicked, live, other, users, replicates, ALPHA) if len(scored) else None
    informative = 0 if found is None else found.users
    few = f"{informative:,} users with both clicks and impressions without, {LEAST} are needed for an interval"
    return ShadowVerdict(
        bundle_id=rows["bundle_id"][0],
        shadow_bundle_id=rows["shadow_bundle_id"][0],
        from_ms=rows["time_ms"][0],
        to_ms=rows["time_ms"][-1],
        impressions=len(scored),
        unscored=len(rows) - len(scored),
        clicks=int(clicked.sum()),
        users=scored["user_id"].n_unique(),
        informative_users=informative,
        informative_impressions=0 if found is None else found.rows,
        replicates=replicates,
        auc=_measure(None if found is None else found.auc),
        gauc=_measure(None if found is None else found.gauc),
        note=few if informative < LEAST else "",
    )


def _measure(found: Change | None) -> Measure:
    if found is None:
        return Measure(live=None, shadow=None, difference=None, low=None, high=None)
    said = (found.live, found.other, found.other - found.live, found.low, found.high)
    live, other, difference, low, high = (each if math.isfinite(each) else None for each in said)
    return Measure(live=live, shadow=other, difference=difference, low=low, high=high)


def described(verdict: ShadowVerdict) -> list[str]:
    """As text, for people."""
    begun, ended = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms / 1000)) for ms in (verdict.from_ms, verdict.to_ms))
    rows = [_row("AUC", verdict.auc), _row("GAUC", verdict.gauc)]
    unscored = f"; {verdict.unscored:,} more without a score of both" if verdict.unscored else ""
    lines = [
        f"{verdict.shadow_bundle_id} in the shadow of {verdict.bundle_id}, {begun} to {ended} UTC",
        f"{verdict.impressions:,} impressions of {verdict.users:,} users, {verdict.clicks:,} clicks{unscored}",
        "",
        *table([("", "live", "shadow", "difference", f"{1 - ALPHA:.0%} interval"), *rows]),
        "",
        f"GAUC is of {verdict.informative_users:,} users who clicked and did not, "
        f"{verdict.informative_impressions:,} impressions",
    ]
    if verdict.note:
        return [*lines, verdict.note]
    return [*lines, f"intervals: {verdict.replicates:,} draws of users, for one look and not for one after another"]


def _row(name: str, found: Measure) -> tuple[str, ...]:
    interval = f"[{shown(found.low, '+.4f')}, {shown(found.high, '+.4f')}]"
    return name, shown(found.live, ".4f"), shown(found.shadow, ".4f"), shown(found.difference, "+.4f"), interval
