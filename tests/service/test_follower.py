"""How processes follow one desired state: prepared by all, agreed on, served by all, and what goes wrong meanwhile."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from control.state import Arm, Experiment, Overrides, Shadow
from service.errors import StoreError
from service.file_state import FileState
from service.loaded import LoadedBundle
from service.settings import Settings
from service.state_stores import Known
from tests.patience import PATIENCE_S, soon
from tests.service.fleet import Member, fleet, want
from tests.service.world import Recipe, make_world, settings_for


@pytest.fixture(scope="session")
def shelf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles world, next, third, and bad, which golden rows refuse."""
    root = tmp_path_factory.mktemp("several")
    for recipe in (
        Recipe(),
        Recipe(bundle_id="next", ads=299),
        Recipe(bundle_id="third", ads=298),
        Recipe(bundle_id="bad", golden_shift=1.0),
    ):
        make_world(root, recipe)
    return root


@pytest.fixture
def ours(shelf_folder: Path) -> Settings:
    return settings_for(shelf_folder / "world")


@pytest.fixture
def store(tmp_path: Path) -> FileState:
    return FileState(tmp_path / "state", 5.0)


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        return await scenario()

    return asyncio.run(whole())


def test_the_setting_begins_the_state(store: FileState, ours: Settings) -> None:
    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            known = await store.look()
            assert known.wanted == known.agreed == member.registry.plan.desired
            assert (member.version, member.registry.live.id) == (1, "world")
            (line,) = await store.audit(10)
            assert (line.action, line.before, line.after) == ("first", 0, 1)
        assert await store.processes() == []

    run(scenario)


def test_all_change_together_once_the_last_one_is_ready(store: FileState, ours: Settings) -> None:
    async def scenario() -> None:
        quick, slow = Member(store, ours), Member(store, ours)
        gate = slow.preparer.gates["next"] = asyncio.Event()
        async with fleet(quick, slow):
            version = await want(store, "next")
            await soon(lambda: quick.status("next") == "ready")
            await asyncio.sleep(0.2)
            assert (quick.version, slow.version) == (1, 1), "nobody goes ahead"
            assert [each.prepared for each in await store.processes()].count(version) == 1
            gate.set()
            await soon(lambda: (quick.version, slow.version) == (version, version))
            assert quick.registry.live.id == slow.registry.live.id == "next"

    run(scenario)


def test_a_bundle_refused_by_one_is_served_by_none(store: FileState, ours: Settings, tmp_path: Path) -> None:
    async def scenario() -> None:
        members = Member(store, ours), Member(store, ours)
        async with fleet(*members):
            await want(store, "bad")
            await soon(lambda: all(member.status("bad") == "refused" for member in members))
            await asyncio.sleep(0.1)
            assert [member.version for member in members] == [1, 1]
            assert (await store.look()).agreed != (await store.look()).wanted
            for process in await store.processes():
                (report,) = (each for each in process.bundles if each.bundle_id == "bad")
                assert "differs from the golden rows by 1" in str(report.error)
                assert not report.checks[-1].passed
            version = await want(store, "next")
            await soon(lambda: [member.version for member in members] == [version, version])
            assert members[0].status("bad") == "refused", "it stays in the list"
            assert members[0].preparer.asked.count("bad") == 1

    run(scenario)


def test_a_bundle_that_is_not_there_is_refused(store: FileState, ours: Settings) -> None:
    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            await want(store, "nowhere")
            await soon(lambda: member.status("nowhere") == "refused")
            assert member.version == 1

    run(scenario)


def test_a_refused_bundle_is_tried_again_for_a_later_version(store: FileState, ours: Settings) -> None:
    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            for times in (1, 2):
                await want(store, "bad")
                await soon(lambda n=times: member.preparer.asked.count("bad") == n)  # type: ignore[misc]
                await soon(lambda: member.status("bad") == "refused")
                assert member.registry.live.id != "bad"

    run(scenario)


def test_a_trouble_of_the_moment_is_no_refusal(
    store: FileState, ours: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.preparation.FIRST_PAUSE_S", 0.05)

    async def scenario() -> None:
        member = Member(store, ours)
        member.preparer.failures["next"] = 2
        async with fleet(member):
            version = await want(store, "next")
            await soon(lambda: member.version == version)
            assert member.preparer.asked == ["next"] * 3
            assert member.status("next") == "ready"

    run(scenario)


def test_who_starts_later_serves_what_was_agreed_on(
    store: FileState, ours: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            version = await want(store, "next")
            await soon(lambda: member.version == version)
            late = Member(store, ours)
            async with fleet(late):
                assert (late.version, late.registry.live.id, late.loads) == (version, "next", 0)
                assert {each.serving for each in await store.processes()} == {version}

    run(scenario)


def test_a_bundle_that_was_loaded_for_nothing_says_so(
    store: FileState, ours: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            version = await want(store, "next")
            await soon(lambda: member.version == version)
        again = Member(store, ours)
        await again.follower.start(again.load, await again.load())
        assert again.version == version
        await soon(lambda: list(again.shelf.held) == ["next"])
        await again.stop()

    run(scenario)
    assert "version 2 of the state serves bundle next, the setting `bundle` is world" in caplog.text


def test_who_starts_holds_nobody_up(store: FileState, ours: Settings) -> None:
    """It is not waited for, and does not serve what was agreed on before."""

    async def scenario() -> None:
        member, late = Member(store, ours), Member(store, ours)
        async with fleet(member):
            second = await want(store, "next")
            await soon(lambda: member.version == second)
            gate = late.preparer.gates["next"] = asyncio.Event()
            starting = asyncio.create_task(late.start())
            await soon(lambda: late.preparer.asked == ["next"])
            third = await want(store, "third")
            await soon(lambda: member.version == third)
            assert not late.registry.is_ready
            gate.set()
            await starting
            assert late.version == third
            await late.stop()

    run(scenario)


def test_a_dead_process_is_not_waited_for(ours: Settings, tmp_path: Path) -> None:
    store = FileState(tmp_path / "state", 0.3)

    async def scenario() -> None:
        lives, dies = Member(store, ours, ttl_s=0.3), Member(store, ours, ttl_s=0.3)
        async with fleet(lives):
            await dies.start()
            await dies.die()
            assert len(await store.processes()) == 2
            version = await want(store, "next")
            await soon(lambda: lives.version == version)
            assert [each.process for each in await store.processes()] == [lives.follower.process]

    run(scenario)


def test_the_bundle_before_is_gone_back_to_without_loading(store: FileState, ours: Settings) -> None:
    async def scenario() -> None:
        member = Member(store, ours, keep=1)
        async with fleet(member):
            for bundle_id in ("next", "world", "next"):
                version = await want(store, bundle_id)
                await soon(lambda v=version: member.version == v)  # type: ignore[misc]
            assert member.preparer.asked == ["next"]
            version = await want(store, "third")
            await soon(lambda: member.version == version)
            await soon(lambda: set(member.shelf.held) == {"next", "third"})

    run(scenario)


def test_every_bundle_that_a_version_names_is_loaded(store: FileState, ours: Settings) -> None:
    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            arm = Arm(name="new", weight=0.5, overrides=Overrides(bundle="next"))
            experiment = Experiment(name="trial", salt="s", arms=(arm,))
            shadow = Shadow(bundle="third", share=0.1)
            version = await want(store, "world", experiments=(experiment,), shadow=shadow)
            await soon(lambda: member.version == version)
            assert set(member.registry.plan.bundles) == {"world", "next", "third"}

    run(scenario)


def test_a_dropped_bundle_is_freed_once_no_request_holds_it(store: FileState, ours: Settings) -> None:
    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            request = [member.registry.live]
            session = weakref.ref(request[0].query._session)
            version = await want(store, "next")
            await soon(lambda: member.version == version)
            await soon(lambda: list(member.shelf.held) == ["next"])
            await asyncio.sleep(0.1)
            assert session() is not None, "a request holds it"
            request.clear()
            await soon(lambda: session() is None)

    gc.disable()  # nothing of it may wait for the collector
    try:
        run(scenario)
    finally:
        gc.enable()


def test_views_of_a_bundle_hold_it_too(store: FileState, ours: Settings) -> None:
    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            live = member.registry.live
            view = LoadedBundle(live.bundle, live.sizes, live.query, live.ladder, live.proof, live.estimates)
            session = weakref.ref(live.query._session)
            del live
            version = await want(store, "next")
            await soon(lambda: member.version == version)
            await asyncio.sleep(0.1)
            assert session() is not None
            assert view.id == "world"
            del view
            await soon(lambda: session() is None)

    run(scenario)


class Faulty(FileState):
    """A store that can be cut off."""

    down = False

    async def look(self) -> Known:
        if self.down:
            raise StoreError("store unavailable (Gone)")
        return await super().look()


def test_a_store_that_is_down_changes_nothing(ours: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Faulty(tmp_path / "state", 5.0)

    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            store.down = True
            await soon(lambda: "cannot be followed" in caplog.text)
            assert member.version == 1
            assert member.follower.age_s > 0
            store.down = False
            version = await want(store, "next")
            await soon(lambda: member.version == version)

    run(scenario)
    assert caplog.text.count("cannot be followed") == 1
    assert "followed again" in caplog.text


def test_without_the_store_the_setting_is_served_until_it_is_back(ours: Settings, tmp_path: Path) -> None:
    store = Faulty(tmp_path / "state", 5.0)

    async def scenario() -> None:
        first = Member(store, ours)
        async with fleet(first):
            version = await want(store, "next")
            await soon(lambda: first.version == version)
        store.down = True
        again = Member(store, ours)
        async with fleet(again):
            assert (again.version, again.registry.live.id, again.follower.serving) == (0, "world", 0)
            store.down = False
            await soon(lambda: again.version == version)
            assert again.registry.live.id == "next"

    run(scenario)


def test_a_store_that_lost_its_state_gets_back_what_is_served(store: FileState, ours: Settings) -> None:
    async def scenario() -> None:
        members = Member(store, ours), Member(store, ours)
        async with fleet(*members):
            version = await want(store, "next")
            await soon(lambda: [member.version for member in members] == [version, version])
            for name in ("wanted.json", "agreed.json"):
                (store.folder / name).unlink()
            found: list[Known] = []

            async def looked() -> None:
                while not found or found[-1].agreed is None:
                    found.append(await store.look())
                    await asyncio.sleep(0.01)

            await asyncio.wait_for(looked(), PATIENCE_S)
            assert found[-1].agreed is not None
            assert (found[-1].agreed.version, found[-1].agreed.control.bundle) == (version, "next")
            assert [member.registry.live.id for member in members] == ["next", "next"]

    run(scenario)


def test_nothing_is_served_where_the_agreed_bundle_is_refused(
    ours: Settings, store: FileState, shelf_folder: Path, tmp_path: Path
) -> None:
    """Another bundle would be served beside those who follow the state. It begins once a version can be served."""

    async def scenario() -> None:
        member = Member(store, ours)
        async with fleet(member):
            version = await want(store, "next")
            await soon(lambda: member.version == version)
            make_world(tmp_path / "elsewhere")
            make_world(tmp_path / "elsewhere", Recipe(bundle_id="third", ads=298))
            other = Member(store, settings_for(tmp_path / "elsewhere/world"))
            async with fleet(other):
                assert not other.registry.is_ready
                assert other.status("next") == "refused"
                version = await want(store, "third")
                await soon(lambda: member.version == version and other.registry.is_ready)
                assert other.version == version

    run(scenario)
