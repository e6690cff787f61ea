"""Flags against a catalogue: what a follower holds is what the store says, whatever changes and whichever fails."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from bundle.bitmap import Bitmap, unpack
from bundle.folder import Bundle, open_bundle
from bundle.vocabulary import Vocabulary
from service import ad_flags
from service.ad_flags import AdFlags, FlagView, canonical, rows_of_texts
from service.errors import StoreError
from service.flag_stores import FLAGS, Change, EmbeddedFlags, Mark, News
from service.metrics import Metrics
from tests.patience import PATIENCE_S
from tests.service.world import Recipe, make_world, open_world

PAUSE, RESUME, EXHAUST = Change(1, 1), Change(1, 0), Change(2, 2)


def rows(view: FlagView, flag: str) -> list[int]:
    """The flagged ads, as rows in the order of their ids: the first ad is 2."""
    return by_id(view.bundle, view.flagged[flag])


def by_id(bundle: Bundle, flagged: Bitmap) -> list[int]:
    index = bundle.ads.index
    return sorted(index.places[np.flatnonzero(unpack(flagged, index.size))].tolist())


def why(flags: AdFlags) -> str | None:
    return flags.degraded


class FailingFlags(EmbeddedFlags):
    """Fails when told to."""

    def __init__(self) -> None:
        super().__init__(1000)
        self.fails: Exception | None = None

    async def news(self, mark: Mark | None) -> News:
        if self.fails is not None:
            raise self.fails
        return await super().news(mark)


class TellingFlags(EmbeddedFlags):
    """Tells what changed, as Redis does, instead of everything."""

    def __init__(self) -> None:
        super().__init__(100_000)
        self.told: list[dict[str, int]] = []

    async def change(self, changes: Mapping[str, Change]) -> int:
        changed = await super().change(changes)
        self.told.append({ad_id: self._flags.get(ad_id, 0) for ad_id in changes})
        return changed

    async def news(self, mark: Mark | None) -> News:
        if mark is None:
            return News(Mark("x", len(self.told)), dict(self._flags), whole=True, size=len(self._flags))
        flags: dict[str, int] = {}
        for told in self.told[mark.version :]:
            flags |= told
        return News(Mark("x", len(self.told)), flags, whole=False, size=len(self._flags))


def follow(scenario: Callable[[AdFlags], Awaitable[None]], store: EmbeddedFlags) -> Metrics:
    """Run `scenario` with a follower that only looks when it is told to."""
    metrics = Metrics()

    async def run() -> None:
        await scenario(AdFlags(store, metrics, 3600.0, 60.0))

    asyncio.run(run())
    return metrics


def test_a_view_has_the_rows_of_each_flag(bundle: Bundle) -> None:
    async def scenario(flags: AdFlags) -> None:
        await flags.store.change({"1000": PAUSE, "1001": EXHAUST, "1002": Change(3, 3), "7": PAUSE, "seven": EXHAUST})
        await flags.refresh()
        view = flags.of(bundle)
        assert rows(view, "paused") == [2, 4]
        assert rows(view, "budget_exhausted") == [3, 4]
        assert view.counts == {"paused": 2, "budget_exhausted": 2, "unknown": 2}
        passed = {reason: by_id(bundle, each) for reason, each in view.passed}
        assert passed == {
            "paused": [row for row in range(2, 302) if row not in (2, 4)],
            "budget_exhausted": [row for row in range(2, 302) if row not in (3, 4)],
        }
        assert flags.of(bundle) is view

    follow(scenario, EmbeddedFlags(100))


def test_flags_that_no_ad_has_are_no_condition(bundle: Bundle) -> None:
    async def scenario(flags: AdFlags) -> None:
        await flags.refresh()
        assert flags.of(bundle).passed == ()
        await flags.store.change({"1000": PAUSE, "7": EXHAUST})
        await flags.refresh()
        assert [reason for reason, _ in flags.of(bundle).passed] == ["paused"]

    follow(scenario, EmbeddedFlags(100))


@pytest.mark.parametrize("string_ads", [False, True])
@pytest.mark.parametrize("kind", [EmbeddedFlags, TellingFlags])
def test_views_follow_every_change(tmp_path: Path, string_ads: bool, kind: type[EmbeddedFlags]) -> None:
    """Two bundles at once; ids that neither knows are kept."""
    one = open_world(tmp_path, Recipe(string_ads=string_ads, ads=40))
    two = open_world(tmp_path, Recipe(string_ads=string_ads, ads=90, bundle_id="two"))
    names = [f"ad-{i:05d}" if string_ads else str(1000 + i) for i in range(120)]
    draw = random.Random(2)
    now: dict[str, int] = {}

    async def scenario(flags: AdFlags) -> None:
        for _ in range(60):
            changes = {}
            for name in draw.sample(names, draw.randint(1, 30)):
                said = draw.randint(1, 3)
                changes[name] = Change(said, said & draw.randint(0, 3))
                now[name] = now.get(name, 0) & ~said | changes[name].on
            await flags.store.change(changes)
            await flags.refresh()
            for bundle in (one, two):
                view, index = flags.of(bundle), bundle.ads.index
                for flag, bit in FLAGS.items():
                    known = [int(index.places[index.id_of(name)]) for name, mask in now.items() if mask & bit]
                    assert rows(view, flag) == sorted(row for row in known if row > 1)
                assert view.unknown == sum(mask > 0 and index.id_of(name) == 1 for name, mask in now.items())

    follow(scenario, kind(1000) if kind is EmbeddedFlags else TellingFlags())


def test_a_bundle_that_was_never_seen_is_looked_up_at_once(bundle: Bundle, tmp_path: Path) -> None:
    later = open_bundle(make_world(tmp_path, Recipe(ads=400, bundle_id="later")))

    async def scenario(flags: AdFlags) -> None:
        await flags.store.change({"1000": PAUSE, "1350": PAUSE})
        await flags.refresh()
        assert flags.of(bundle).unknown == 1
        assert rows(flags.of(later), "paused") == [2, 352]
        assert flags.of(later).unknown == 0
        flags.keep(later, [bundle, later])

    metrics = follow(scenario, EmbeddedFlags(100))
    assert 'adrank_flagged_ads{flag="paused"} 2.0' in metrics.render().decode()


def test_views_of_bundles_that_are_let_go_of_are_not_kept(bundle: Bundle, tmp_path: Path) -> None:
    later = open_bundle(make_world(tmp_path, Recipe(ads=400, bundle_id="later")))

    async def scenario(flags: AdFlags) -> None:
        before = flags.of(bundle), flags.of(later)
        flags.keep(later, [later, bundle])
        assert (flags.of(bundle), flags.of(later)) == before
        flags.keep(later, [later])
        assert [view.bundle for view in flags._views] == [later]
        assert flags.of(later) is before[1]

    follow(scenario, EmbeddedFlags(100))


def test_the_last_flags_stay_in_force_while_the_store_fails(
    bundle: Bundle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FailingFlags()
    now = [100.0]
    monkeypatch.setattr(ad_flags, "monotonic", lambda: now[0])

    async def scenario(flags: AdFlags) -> None:
        assert why(flags) == "ad_flags: never read"
        await store.change({"1000": PAUSE})
        await flags.refresh()
        assert why(flags) is None
        store.fails = StoreError("timeout")
        await store.change({"1000": RESUME})
        for _ in range(3):
            await flags.refresh()
        now[0] += 60.0
        assert why(flags) is None
        now[0] += 1.5
        assert why(flags) == "ad_flags: stale"
        assert rows(flags.of(bundle), "paused") == [2]
        await flags.refresh()
        assert flags.age_s == 61.5
        store.fails = None
        await flags.refresh()
        assert why(flags) is None
        assert rows(flags.of(bundle), "paused") == []

    with caplog.at_level(logging.WARNING, "adrank.flags"):
        metrics = follow(scenario, store)
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert said[0] == "flags of ads cannot be read, those last known stay in force: timeout"
    assert said[1] == "flags of ads are read again after 61.5 s"
    assert "adrank_ad_flags_age_seconds 0.0" in metrics.render().decode()


def test_following_goes_on_after_an_unexpected_error(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    store = FailingFlags()

    async def scenario() -> None:
        flags = AdFlags(store, Metrics(), 0.05, 60.0)
        await flags.start()
        store.fails = ZeroDivisionError("odd")
        await store.change({"1000": PAUSE})
        while not caplog.records:
            await asyncio.sleep(0.01)
        store.fails = None
        while rows(flags.of(bundle), "paused") != [2]:
            await asyncio.sleep(0.01)
        await flags.stop()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
    assert caplog.records[0].message == "flags of ads: unexpected error"


def test_a_follower_with_another_number_of_flags_starts_anew(bundle: Bundle) -> None:
    store = TellingFlags()

    async def scenario(flags: AdFlags) -> None:
        await store.change({"1000": PAUSE, "1001": PAUSE})
        await flags.refresh()
        del store._flags["1001"]  # as Redis might lose a key
        await flags.refresh()
        await flags.refresh()
        assert rows(flags.of(bundle), "paused") == [2]

    follow(scenario, store)


def test_one_ad_has_one_name() -> None:
    integers, texts = Vocabulary.of([7]), Vocabulary.of(["7"])
    assert {canonical(integers, each) for each in (7, "7", "07", " 7 ")} == {"7"}
    assert [canonical(texts, each) for each in (7, "7", "07")] == ["7", "7", "07"]
    assert canonical(integers, "seven") == "seven"


def test_ids_are_looked_up_together_as_one_by_one() -> None:
    odd = ["7", "-3", "0", "x", "", "99999999999999999999", "7\0", "12", "é", "a" * 500]
    for index in (
        Vocabulary.of([-3, 7, 12, 2**63 - 1]),
        Vocabulary.of(["7", "x", "é", "12"]),
        Vocabulary(np.empty(0, dtype=np.int64)),
        Vocabulary.of(["a" * 400]),
    ):
        assert rows_of_texts(index, odd).tolist() == [index.id_of(each) for each in odd]
        assert rows_of_texts(index, []).tolist() == []
