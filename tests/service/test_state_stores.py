"""Where the desired state is kept: one behaviour, in a folder and in a real Redis."""

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from control.reports import BundleReport, ProcessReport
from control.state import Desired, Overrides
from service.errors import ConflictError, StoreError
from service.file_state import FileState
from service.redis_state import RedisState
from service.redis_store import RedisStore
from service.state_stores import StateStore
from tests.patience import PATIENCE_S
from tests.service.conftest import RedisServer, free_port
from tests.service.fleet import change

ROOT = Path(__file__).parents[2]
TTL_S = 0.4
Making = Callable[[], StateStore]


def redis_store(url: str) -> RedisStore:
    return RedisStore(
        url, prefix="u:", timeout_s=1, write_timeout_s=2, pool_size=4, history_limit=10, max_record_bytes=10_000
    )


@pytest.fixture(params=["file", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Making:
    """Makes stores that share one state, each as a process has it."""
    if request.param == "file":
        return lambda: FileState(tmp_path / "state", TTL_S)
    server: RedisServer = request.getfixturevalue("redis_server")
    prefix = f"state:{uuid.uuid4().hex}:"
    return lambda: RedisState(redis_store(server.url), prefix, TTL_S)


def run(make: Making, scenario: Callable[..., Awaitable[Any]], n: int = 1) -> Any:
    async def whole() -> Any:
        stores = [make() for _ in range(n)]
        try:
            return await scenario(*stores)
        finally:
            for store in stores:
                await store.close()
                if isinstance(store, RedisState):
                    await store._redis.close()  # type: ignore[attr-defined]

    return asyncio.run(whole())


def state(version: int, bundle_id: str = "world") -> Desired:
    return Desired(version=version, control=Overrides(bundle=bundle_id))


def said(process: str, serving: int, prepared: int) -> ProcessReport:
    bundles = (BundleReport(bundle_id="world", status="ready"),)
    return ProcessReport(
        process=process, started_at=1.0, at=time.time(), serving=serving, prepared=prepared, bundles=bundles
    )


async def put(store: StateStore, version: int, bundle_id: str = "world") -> None:
    await store.change(state(version, bundle_id), change(version - 1, version))


def test_an_empty_store_knows_nothing(make: Making) -> None:
    async def scenario(store: StateStore) -> None:
        known = await store.look()
        assert (known.wanted, known.agreed) == (None, None)
        assert await store.version(1) is None
        assert (await store.audit(10), await store.processes()) == ([], [])
        assert not await store.agree(1)

    run(make, scenario)


def test_changes_are_seen_by_others_and_written_down(make: Making) -> None:
    async def scenario(one: StateStore, other: StateStore) -> None:
        await put(one, 1)
        await put(other, 2, "next")
        for store in (one, other):
            known = await store.look()
            assert known.wanted == state(2, "next")
            assert known.agreed is None
            assert [line.after for line in await store.audit(10)] == [2, 1]
            assert [line.after for line in await store.audit(1)] == [2]
        assert await one.version(1) == state(1)
        assert await one.version(3) is None

    run(make, scenario, 2)


def test_a_change_of_another_version_than_there_is_is_refused(make: Making) -> None:
    async def scenario(store: StateStore) -> None:
        await put(store, 1)
        for before in (0, 2):
            with pytest.raises(ConflictError, match=f"version {before} was to be replaced, the state is at 1"):
                await store.change(state(before + 1, "other"), change(before, before + 1))
        assert (await store.look()).wanted == state(1)
        assert len(await store.audit(10)) == 1

    run(make, scenario)


def test_of_changes_at_the_same_time_one_wins(make: Making) -> None:
    async def scenario(*stores: StateStore) -> None:
        await put(stores[0], 1)
        tried = [store.change(state(2, f"b{i}"), change(1, 2, f"b{i}")) for i, store in enumerate(stores)]
        found = await asyncio.gather(*tried, return_exceptions=True)
        (winner,) = (i for i, each in enumerate(found) if each is None)
        assert all(isinstance(each, ConflictError) for i, each in enumerate(found) if i != winner)
        assert (await stores[0].look()).wanted == state(2, f"b{winner}")
        assert [line.who for line in await stores[0].audit(10)] == [f"b{winner}", "anna"]

    run(make, scenario, 6)


def test_a_version_is_agreed_on_when_all_who_serve_have_prepared_it(make: Making) -> None:
    async def scenario(one: StateStore, other: StateStore) -> None:
        await put(one, 1)
        await one.report(said("a", 0, 1))
        assert await one.agree(1), "nobody serves yet"
        await one.report(said("a", 1, 1))
        await other.report(said("b", 1, 1))
        await put(one, 2, "next")
        await one.report(said("a", 1, 2))
        assert not await one.agree(2), "b has not"
        assert (await other.look()).agreed == state(1)
        await other.report(said("c", 0, 0))
        await other.report(said("b", 1, 2))
        assert await one.agree(2), "c serves nothing"
        assert (await other.look()).agreed == state(2, "next")
        assert await other.agree(2), "it is already"
        assert not await other.agree(1), "it is not wanted any more"

    run(make, scenario, 2)


def test_a_process_that_says_nothing_is_dead(make: Making) -> None:
    async def scenario(store: StateStore) -> None:
        await put(store, 1)
        await store.report(said("a", 1, 0))
        await store.report(said("b", 1, 1))
        assert [each.process for each in await store.processes()] == ["a", "b"]
        assert not await store.agree(1)
        end = time.monotonic() + PATIENCE_S
        while not await store.agree(1):
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
            await store.report(said("b", 1, 1))
        assert [each.process for each in await store.processes()] == ["b"]

    run(make, scenario)


def test_who_leaves_is_not_waited_for(make: Making) -> None:
    async def scenario(store: StateStore) -> None:
        await put(store, 1)
        await store.report(said("a", 1, 0))
        assert not await store.agree(1)
        await store.leave("a")
        assert await store.agree(1)

    run(make, scenario)


def test_old_versions_are_forgotten_and_the_agreed_one_is_not(make: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.file_state.KEPT", 3)
    monkeypatch.setattr("service.redis_state.KEPT", 3)

    async def scenario(one: StateStore, other: StateStore) -> None:
        await put(one, 1)
        assert await one.agree(1)
        for version in range(2, 8):
            await put(one, version)
        known = await other.look()
        assert known.wanted is not None
        assert (known.wanted.version, known.agreed) == (7, state(1))
        assert await one.version(3) is None
        assert await one.version(5) == state(5)

    run(make, scenario, 2)


def test_a_lost_state_may_come_back_with_any_version(make: Making) -> None:
    async def scenario(store: StateStore) -> None:
        await store.change(state(7), change(0, 7))
        await put(store, 8)
        assert (await store.look()).wanted == state(8)

    run(make, scenario)


def test_what_was_acknowledged_survives_kill_9(make: Making, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A process changes the state as fast as it can and is killed, again and again: what is left is whole, is the last
    change that was acknowledged or the one after, and the audit log has each once."""
    store = make()
    if isinstance(store, RedisState):
        url, prefix = request.getfixturevalue("redis_server").url, store._meta.removesuffix("meta")
        options = "prefix='u:', timeout_s=1, write_timeout_s=2, pool_size=4, history_limit=10, max_record_bytes=10000"
        made = f"RedisState(RedisStore({url!r}, {options}), {prefix!r}, 5.0)"
    else:
        made = f"FileState(Path({str(tmp_path / 'state')!r}), 5.0)"
    program = f"""
import asyncio
from pathlib import Path
from control.state import Change, Desired, Overrides
from service.file_state import FileState
from service.redis_state import RedisState
from service.redis_store import RedisStore
async def main():
    store = {made}
    wanted = (await store.look()).wanted
    version = 0 if wanted is None else wanted.version
    while True:
        version += 1
        change = Change(at=1.0, who="anna", why="to see", action="serve", before=version - 1, after=version)
        await store.change(Desired(version=version, control=Overrides(bundle="world")), change)
        print(version, flush=True)
asyncio.run(main())
"""
    acknowledged = 0
    for round_ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(5 + round_):
            acknowledged = int(process.stdout.readline())
        process.kill()
        for line in process.stdout.read().splitlines():
            acknowledged = int(line) if line else acknowledged
        process.wait(PATIENCE_S)
        process.stdout.close()

        async def scenario(store: StateStore, least: int = acknowledged) -> int:
            wanted = (await store.look()).wanted
            assert wanted is not None
            assert wanted.version in (least, least + 1)
            assert [line.after for line in await store.audit(1000)] == list(range(wanted.version, 0, -1))
            assert await store.version(wanted.version) == wanted
            return wanted.version

        acknowledged = run(make, scenario)


def test_a_store_that_fails_says_so(tmp_path: Path) -> None:
    async def scenario(store: StateStore) -> None:
        for asked in (store.look(), store.report(said("a", 1, 1)), store.audit(1), put(store, 1)):
            with pytest.raises(StoreError):
                await asked

    taken = tmp_path / "taken"
    taken.write_text("no folder")
    run(lambda: FileState(taken, TTL_S), scenario)
    run(lambda: RedisState(redis_store(f"redis://127.0.0.1:{free_port()}/0"), "state:", TTL_S), scenario)


def test_files_that_are_no_state_are_named(tmp_path: Path) -> None:
    (tmp_path / "wanted.json").write_text('{"state": 1}')

    async def scenario(store: StateStore) -> None:
        with pytest.raises(StoreError, match=str(tmp_path)):
            await store.look()

    run(lambda: FileState(tmp_path, TTL_S), scenario)


def test_a_line_of_the_audit_log_that_was_cut_off_is_made_good(tmp_path: Path) -> None:
    async def scenario(store: StateStore) -> None:
        await put(store, 1)
        await put(store, 2)
        path = tmp_path / "audit.jsonl"
        path.write_bytes(path.read_bytes()[:-20])
        assert [line.after for line in await store.audit(5)] == [2, 1]
        await put(store, 3)
        assert [json.loads(line)["after"] for line in path.read_text().splitlines()] == [1, 2, 3]

    run(lambda: FileState(tmp_path, TTL_S), scenario)


def test_a_lock_that_is_not_given_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that is stopped, not killed: the system takes the lock from those that are killed."""
    monkeypatch.setattr("service.file_state.LOCK_S", 0.1)
    started = multiprocessing.get_context("spawn").Event()
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path, started))
    holder.start()
    assert holder.pid is not None
    try:
        assert started.wait(PATIENCE_S)

        async def refused(store: StateStore) -> None:
            with pytest.raises(StoreError, match=r"is locked for 0\.1 s"):
                await put(store, 1)

        run(lambda: FileState(tmp_path, TTL_S), refused)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(10)
    run(lambda: FileState(tmp_path, TTL_S), lambda store: put(store, 1))


def _hold(folder: Path, started: Any) -> None:
    with FileState(folder, TTL_S)._locked():
        started.set()
        time.sleep(60)


def test_a_temporary_folder_is_nobody_elses_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "state"

    async def scenario(store: StateStore) -> None:
        await put(store, 1)
        assert folder.stat().st_mode & 0o777 == 0o700

    run(lambda: FileState(folder, TTL_S, temporary=True), scenario)
    assert not folder.exists()


def test_keys_that_hold_something_else_leave_the_state_as_it_is(redis_server: RedisServer) -> None:
    prefix = f"state:{uuid.uuid4().hex}:"

    async def scenario(store: Any) -> None:
        await put(store, 1)
        await store._redis.script("return redis.call('SET', KEYS[1], 'x')", [f"{prefix}audit"], ())
        with pytest.raises(StoreError):
            await put(store, 2)
        assert (await store.look()).wanted == state(1)

    run(lambda: RedisState(redis_store(redis_server.url), prefix, TTL_S), scenario)


def test_another_state_of_the_same_version_is_noticed(redis_server: RedisServer) -> None:
    prefix = f"state:{uuid.uuid4().hex}:"

    async def scenario(one: Any, other: Any) -> None:
        await put(one, 1)
        assert (await other.look()).wanted == state(1)
        keys = [f"{prefix}{name}" for name in ("meta", "versions", "audit", "processes", "seen")]
        await one._redis.script("return redis.call('DEL', unpack(KEYS))", keys, ())
        assert (await other.look()).wanted is None
        await put(one, 1, "next")
        assert (await other.look()).wanted == state(1, "next")

    run(lambda: RedisState(redis_store(redis_server.url), prefix, TTL_S), scenario, 2)
