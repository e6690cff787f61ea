"""A real helper process judges; what it refuses never loads, and requests notice nothing of either."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle.record import pack
from bundle.store import publish
from service import gate_helper
from service.app import create_app
from service.background import Background
from service.errors import StoreError
from service.gate import Job
from service.gate_helper import come_forward, command
from service.gate_process import Line
from service.gated_preparer import GatedPreparer
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.preparing import RefusedError
from service.recent import Recent
from service.settings import to_environment
from service.traffic import Traffic
from service.user_cache import StoredUser
from tests.patience import PATIENCE_S
from tests.service import spoilt_bundles
from tests.service.conftest import client_of
from tests.service.test_gate import ALL
from tests.service.world import Recipe, demo_records, make_world, settings_for

ROOT = Path(__file__).parents[2]


class Host:
    """A machine with a live bundle, a store of others, and processes that prepare them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = settings_for(make_world(root / "store"), bundle_cache=root / "cache")
        self.live = load_bundle(self.settings.bundle, self.settings)
        self.background = Background(Traffic())
        self.recent = Recent(200)
        for i in range(20):
            body = {"user_id": "anna", "context": {"scene": "feed", "hour": i}}
            self.recent.add(json.dumps(body).encode(), StoredUser(pack(demo_records()["anna"])))

    def add(self, bundle_id: str, spoil: Callable[[Path], None] = lambda _: None) -> Path:
        folder = make_world(self.root / "store", Recipe(bundle_id=bundle_id))
        spoil(folder)
        return folder

    def preparer(self, **changed: Any) -> GatedPreparer:
        return GatedPreparer(self.settings.model_copy(update=changed), self.recent, self.background)

    def prepare(self, bundle_id: str, live: LoadedBundle | None = None, **changed: Any) -> LoadedBundle:
        return asyncio.run(self.preparer(**changed).prepare(bundle_id, live or self.live))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.background.close()


def helpers() -> list[int]:
    """Helper processes that this process started and that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"service.gate_process" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


async def helper() -> int:
    """The one that is started next."""
    while not (found := helpers()):
        await asyncio.sleep(0.01)
    return found[0]


def judged(caplog: pytest.LogCaptureFixture) -> int:
    """How often a helper was asked."""
    return sum(record.name == "adrank.gate" and "passed" in record.getMessage() for record in caplog.records)


def test_what_passes_is_loaded_with_its_checks(host: Host) -> None:
    host.add("next")
    loaded = host.prepare("next")
    assert loaded.id == "next"
    assert loaded.proof.requests == 2
    assert [check.name for check in loaded.checks] == ALL
    assert all(check.passed for check in loaded.checks)
    assert next(check.note for check in loaded.checks if check.name == "requests") == "requests 20"
    assert helpers() == []


def test_a_refusal_leaves_traffic_untouched(host: Host) -> None:
    host.add("bad", spoilt_bundles.with_nan_weights)

    async def scenario() -> None:
        async with client_of(create_app(host.settings, host.live)) as client:
            asked = asyncio.create_task(host.preparer().prepare("bad", host.live))
            answers = 0
            while not asked.done():
                answer = await client.post("/v1/rank", json={"user_id": "anna", "context": {"scene": "feed"}})
                assert (answer.status_code, answer.json()["bundle_id"]) == (200, "world")
                answers += 1
            assert answers > 10
            with pytest.raises(RefusedError, match="bundle bad is refused: golden: found nan, limit 1e-05") as caught:
                await asked
            report = caught.value.report
            assert (report.bundle_id, report.status) == ("bad", "refused")
            assert [check.name for check in report.checks] == ALL[: ALL.index("golden") + 1]
            assert [check.passed for check in report.checks] == [True] * ALL.index("golden") + [False]

    asyncio.run(scenario())


def test_a_helper_that_is_killed_is_a_refusal(host: Host) -> None:
    host.add("next")

    async def scenario() -> None:
        asked = asyncio.create_task(host.preparer().prepare("next", host.live))
        os.kill(await helper(), signal.SIGKILL)
        with pytest.raises(RefusedError, match="killed by SIGKILL, which may mean that memory was short") as caught:
            await asked
        check = caught.value.report.checks[-1]
        assert (check.name, check.found, check.limit) == ("helper", -9, 0)

    asyncio.run(scenario())
    assert helpers() == []


def test_a_helper_that_takes_too_long_is_ended(host: Host) -> None:
    host.add("next")
    with pytest.raises(RefusedError, match=r"time: found .*, limit 0.05: seconds") as caught:
        host.prepare("next", gate_timeout_seconds=0.05)
    assert float(caught.value.report.checks[-1].found or 0) >= 0.05
    assert helpers() == []


def test_whoever_gives_up_takes_the_helper_along(host: Host) -> None:
    host.add("next")

    async def scenario() -> None:
        asked = asyncio.create_task(host.preparer().prepare("next", host.live))
        await helper()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(scenario())
    assert helpers() == []


def test_the_helper_gives_way_and_ends_with_its_parent(host: Host) -> None:
    job = Job(bundle_id="next", place=str(host.root / "store"), cache=str(host.root / "cache"))
    host.add("next")
    starting = command(patient=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | to_environment(host.settings)
    with subprocess.Popen(starting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(job.model_dump_json().encode() + b"\n")
        process.stdin.flush()
        first = Line.model_validate_json(process.stdout.readline())
        assert first.check is not None
        assert first.check.name == "store"
        status = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        assert status[16] == "19"  # nice, the 19th field
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"
        process.stdin.close()
        assert process.wait(PATIENCE_S) in (0, 1)
    with subprocess.Popen(starting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        process.communicate(job.model_dump_json().encode() + b"\n", timeout=PATIENCE_S)
        assert process.returncode == 1


def test_the_helper_is_not_started_on_the_event_loop(host: Host) -> None:
    host.add("next")
    started: list[threading.Thread] = []
    watching = True

    def watch(event: str, arguments: Any) -> None:  # there is no way to take it away again
        if watching and event == "subprocess.Popen" and "service.gate_process" in arguments[1]:
            started.append(threading.current_thread())

    sys.addaudithook(watch)
    host.prepare("next")
    watching = False
    assert len(started) == 1
    assert started[0] is not threading.main_thread()


def test_a_helper_that_is_not_done_in_time_comes_forward(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    forward: list[int] = []

    def watched(process: "subprocess.Popen[bytes]") -> None:
        forward.append(process.pid)
        come_forward(process)

    monkeypatch.setattr(gate_helper, "come_forward", watched)
    host.add("next")
    assert host.prepare("next", gate_idle_seconds=0.01).id == "next"
    assert len(forward) == 1


def test_processes_of_a_host_ask_once(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host.add("next")

    async def scenario() -> list[LoadedBundle]:
        return await asyncio.gather(*(host.preparer().prepare("next", host.live) for _ in range(3)))

    found = asyncio.run(scenario())
    assert {loaded.checks for loaded in found} == {found[0].checks}
    assert len({id(loaded) for loaded in found}) == 3
    assert judged(caplog) == 1
    host.prepare("next")
    assert judged(caplog) == 1
    host.prepare("next", gate_overlap=0.3)
    assert judged(caplog) == 2  # by other limits


def test_a_bundle_that_changed_is_judged_again(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = host.add("next")
    host.prepare("next")
    spoilt_bundles.truncated(folder)
    with pytest.raises(RefusedError, match=r"checksum: found 1, limit 0: .*fields\.npy"):
        host.prepare("next")


def test_files_are_not_hashed_again_in_the_serving_process(host: Host) -> None:
    """One that is altered so that neither size nor time tell, after the verdict, is not noticed."""
    folder = host.add("next")
    host.prepare("next")
    path = folder / "users/records.npy"
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert host.prepare("next").id == "next"
    with pytest.raises(RefusedError, match=r"checksum: .*records\.npy"):
        host.prepare("next", gate_verdict_seconds=0)


def test_bundles_of_a_url_are_fetched(host: Host) -> None:
    publish(make_world(host.root / "made", Recipe(bundle_id="far")), f"file://{host.root}/remote")
    loaded = host.prepare("far", bundles=f"file://{host.root}/remote")
    assert loaded.bundle.folder == host.root / "cache/far"
    with pytest.raises(RefusedError, match=r"store: found 0, limit 1: .* has no bundle 'nowhere'"):
        host.prepare("nowhere", bundles=f"file://{host.root}/remote")


def test_a_copy_that_is_damaged_is_fetched_again(host: Host) -> None:
    publish(make_world(host.root / "made", Recipe(bundle_id="far")), f"file://{host.root}/remote")
    (host.root / "cache").mkdir(exist_ok=True)
    damaged = make_world(host.root / "cache", Recipe(bundle_id="far"))
    spoilt_bundles.truncated(damaged)
    with pytest.raises(RefusedError, match="checksum"):
        host.prepare("far", bundles=f"file://{host.root}/remote", gate_verdict_seconds=0)
    assert host.prepare("far", bundles=f"file://{host.root}/remote", gate_verdict_seconds=0).id == "far"


def test_a_store_that_does_not_answer_says_nothing_of_the_bundle(host: Host) -> None:
    with pytest.raises(StoreError, match="Protocol not known: nowhere"):
        host.prepare("next", bundles="nowhere://x")


def test_what_is_no_id_is_refused(host: Host) -> None:
    with pytest.raises(RefusedError, match="is no bundle's id"):
        host.prepare("../next")


def test_the_first_bundle_may_lie_under_any_name(host: Host, tmp_path: Path) -> None:
    elsewhere = make_world(tmp_path / "x").rename(tmp_path / "odd-name")
    loaded = asyncio.run(
        GatedPreparer(settings_for(elsewhere, bundle_cache=tmp_path / "cache"), host.recent, host.background).prepare(
            "world", None
        )
    )
    assert (loaded.id, loaded.bundle.folder) == ("world", elsewhere)
