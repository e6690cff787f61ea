"""Swaps in real processes under load, with kill -9 of whatever there is: every answer is wholly from one bundle, and
afterwards all serve one agreed version."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control.state import Desired, Overrides
from service.file_state import FileState
from service.redis_state import RedisState
from tests.patience import PATIENCE_S, until
from tests.service.conftest import RedisServer, post
from tests.service.fleet import want
from tests.service.test_serve import Served, served
from tests.service.test_state_stores import redis_store
from tests.service.world import Recipe, make_world, settings_for

ASKED = {"user_id": "nobody", "k": 20}
"""Nothing is known of this user with or without Redis, so that answers depend on the bundle alone."""
PREFIX = "swap:"
TTL_S = 1.0


class Cluster:
    """A service of two workers, the Redis beside it, and what each bundle answers by itself."""

    def __init__(self, root: Path) -> None:
        self.bundles = [make_world(root, Recipe()), make_world(root, Recipe(bundle_id="next", ads=299))]
        self.expected = {each.name: ranking(post(settings_for(each), "/v1/rank", ASKED)) for each in self.bundles}
        assert self.expected["world"] != self.expected["next"]
        (root / "redis").mkdir()
        self.cache = root / "cache"
        self.redis = RedisServer(root / "redis", "--appendonly", "yes", "--appendfsync", "always")

    @property
    def options(self) -> list[str]:
        state = ["--state-ttl-seconds", str(TTL_S), "--state-poll-seconds", "0.1", "--keep-bundles", "0"]
        limits = {"overlap": "0", "psi": "99", "score-shift": "99"}  # other scores
        gate = [word for name, value in limits.items() for word in (f"--gate-{name}", value)]
        gate += ["--bundle-cache", str(self.cache)]
        return ["--workers", "2", "--redis-url", self.redis.url, "--redis-prefix", PREFIX, *state, *gate]

    def run(self) -> contextlib.AbstractContextManager[Served]:
        return served(self.bundles[0], *self.options)

    def want(self, bundle_id: str) -> int:
        async def change() -> int:
            store = redis_store(self.redis.url)
            try:
                return await want(RedisState(store, f"state:{PREFIX}", TTL_S), bundle_id)
            finally:
                await store.close()

        return asyncio.run(change())

    def audit(self) -> list[int]:
        """The versions in the audit log, oldest first."""

        async def read() -> list[int]:
            store = redis_store(self.redis.url)
            try:
                return [each.after for each in await RedisState(store, f"state:{PREFIX}", TTL_S).audit(1000)][::-1]
            finally:
                await store.close()

        return asyncio.run(read())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.redis.stop()


def ranking(answer: Any) -> list[tuple[int, float]]:
    return [(ad["ad_id"], ad["pctr"]) for ad in answer["ads"]]


class Load:
    """Asks without a pause in threads of its own, each request on a new connection, so that all workers get some."""

    def __init__(self, url: str, expected: dict[str, Any]) -> None:
        self._url, self._expected = url, expected
        self.counts = dict.fromkeys(expected, 0)
        self.wrong: list[str] = []
        self.cut_off = 0
        """Connections that ended without an answer."""
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        one_by_one = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=self._url, timeout=PATIENCE_S, limits=one_by_one) as client:
            while not self._end.wait(0.002):
                try:
                    answer = client.post("/v1/rank", json=ASKED)
                except httpx.TransportError:
                    self.cut_off += 1
                    time.sleep(0.02)
                    continue
                if answer.status_code != 200:
                    self.wrong.append(answer.text)
                elif ranking(answer.json()) != self._expected[answer.json()["bundle_id"]]:
                    self.wrong.append(f"mixed: {answer.text}")
                else:
                    self.counts[answer.json()["bundle_id"]] += 1


def standing(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/v1/bundles", timeout=PATIENCE_S, verify=False).json()["state"]
    return found


def all_serve(url: str, version: int, processes: int = 2) -> bool:
    try:
        found = standing(url)
    except (httpx.TransportError, KeyError):  # no answer, or no bundle yet
        return False
    said = [each["serving"] for each in found["processes"]]
    return (found["wanted"], found["agreed"], said) == (version, version, [version] * processes)


def test_swaps_under_load_cost_no_request_and_mix_nothing(cluster: Cluster) -> None:
    with cluster.run() as service, Load(service.url, cluster.expected) as load:
        until(lambda: all_serve(service.url, 1), lambda: standing(service.url))
        for bundle_id in ("next", "world", "next"):
            version = cluster.want(bundle_id)
            until(lambda v=version: all_serve(service.url, v), lambda: standing(service.url))  # type: ignore[misc]
            before = load.counts[bundle_id]
            until(lambda b=bundle_id, n=before: load.counts[b] > n + 5)  # type: ignore[misc]
        text = httpx.get(f"{service.url}/metrics", timeout=PATIENCE_S).text
        for what in ("wanted", "agreed", "serving"):
            lines = [line for line in text.splitlines() if line.startswith("adrank_state_version{") and what in line]
            assert len(lines) == 2, "one a process"
            assert all(line.endswith(" 4.0") for line in lines)
    assert (load.wrong, load.cut_off) == ([], 0)


def test_a_worker_is_killed_in_the_middle_of_a_swap(cluster: Cluster) -> None:
    with cluster.run() as service, Load(service.url, cluster.expected) as load:
        until(lambda: all_serve(service.url, 1))
        victim = int(standing(service.url)["processes"][0]["process"].split(".")[-2])
        version = cluster.want("next")
        time.sleep(0.1)
        os.kill(victim, signal.SIGKILL)
        until(lambda: all_serve(service.url, version), lambda: standing(service.url))
        assert str(victim) not in {each["process"].split(".")[-2] for each in standing(service.url)["processes"]}
        text = httpx.get(f"{service.url}/metrics", timeout=PATIENCE_S).text
        assert f'pid="{victim}"' not in text, "the dead serve no version"
    assert load.wrong == []


def test_redis_is_killed_in_the_middle_of_a_swap(cluster: Cluster) -> None:
    with cluster.run() as service, Load(service.url, cluster.expected) as load:
        until(lambda: all_serve(service.url, 1))
        version = cluster.want("next")
        time.sleep(0.1)
        assert cluster.redis.process is not None
        cluster.redis.process.kill()
        cluster.redis.process.wait(PATIENCE_S)
        until(lambda: standing(service.url)["error"] is not None)
        answered = sum(load.counts.values())
        until(lambda: sum(load.counts.values()) > answered + 10)
        cluster.redis.start()
        until(lambda: all_serve(service.url, version), lambda: standing(service.url))
        assert cluster.audit() == [1, 2]
        version = cluster.want("world")
        until(lambda: all_serve(service.url, version), lambda: standing(service.url))
    assert (load.wrong, load.cut_off) == ([], 0)


@pytest.mark.slow
def test_the_whole_service_is_killed_in_the_middle_of_a_swap(cluster: Cluster) -> None:
    served_last = "world"
    for delay, bundle_id in ((0.05, "next"), (0.25, "world"), (0.0, "")):
        with cluster.run() as service, Load(service.url, cluster.expected) as load:
            last = max(1, len(cluster.audit()))
            until(lambda n=last: all_serve(service.url, n), lambda: standing(service.url))  # type: ignore[misc]
            assert httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S).json()["bundle_id"] == served_last
            if bundle_id:
                cluster.want(bundle_id)
                time.sleep(delay)
                os.killpg(service.process.pid, signal.SIGKILL)
                service.process.wait(PATIENCE_S)
        assert load.wrong == []
        served_last = bundle_id
    assert cluster.audit() == [1, 2, 3]


def test_a_state_of_one_process_lasts_as_long_as_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis and without a folder."""
    bundle = make_world(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with served(bundle) as service:
        found = standing(service.url)
        assert (found["wanted"], found["agreed"], found["serving"]) == (1, 1, 1)
        assert [each["serving"] for each in found["processes"]] == [1]
        assert len(list((tmp_path / "temporary").glob("adrank-state-*"))) == 1
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE_S) == 0
    assert list((tmp_path / "temporary").glob("adrank-state-*")) == []


def test_the_state_of_a_folder_prevails_over_the_setting(tmp_path: Path) -> None:
    bundles = make_world(tmp_path), make_world(tmp_path, Recipe(bundle_id="next", ads=299))
    options = ["--state-folder", str(tmp_path / "state")]
    with served(bundles[0], *options) as service:
        assert standing(service.url)["agreed"] == 1
    with served(bundles[1], *options) as service:
        assert httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S).json()["bundle_id"] == "world"
        known = asyncio.run(FileState(tmp_path / "state", TTL_S).look())
        assert known.agreed == known.wanted == Desired(version=1, control=Overrides(bundle="world"))
