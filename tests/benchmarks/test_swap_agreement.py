"""How long several services take to serve another bundle: what is counted, and one swap of real processes."""

import asyncio
import json
import os
import shutil
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from benchmarks.http.load import LoadError, http_request
from benchmarks.swap_agreement import Agreement, Client, all_ready, measured, tell
from benchmarks.swap_driver import want, why_not
from control.reports import BundleReport, ProcessReport
from control.state import Change, Desired, Overrides
from service.file_state import FileState
from tests.service.world import Recipe, make_world

SWAPS = [
    Agreement(asked=0.0, unready=2.0, ready=2.01, served=(2.05, 2.10, 2.02, 2.03)),
    Agreement(asked=10.0, unready=13.0, ready=13.03, served=(13.02, 13.04, 13.06, 13.05)),
    Agreement(asked=20.0, unready=21.0, ready=21.02, served=(21.30, 21.35, 21.40, 21.37)),
]
ANY_BUNDLE = ("--gate-overlap", "0", "--gate-psi", "99", "--gate-score-shift", "99")


def test_the_time_is_from_the_last_one_unready_to_the_last_one_serving() -> None:
    report = tell(SWAPS, 2)
    assert report.figures == pytest.approx(
        {
            "swap.agreement.seconds": 0.10,
            "swap.agreement.longest_seconds": 0.40,
            "swap.agreement.unsure_seconds": 0.03,
            "swap.agreement.both_seconds": 0.10,
            "swap.agreement.ready_seconds": 2.0,
            "swap.agreement.swaps": 3,
            "swap.agreement.processes": 4,
        }
    )
    (table,) = report.tables
    assert table.title == "Agreement: 3 swaps, 4 processes of 2 services over one Redis, seconds"
    agreed = table.rows[1]
    assert agreed[0] == "from the last one ready to all serving"
    np.testing.assert_allclose(np.array(agreed[1:], dtype=float), [0.10, 0.40])


def report_of(process: str, prepared: int, error: str | None = None) -> ProcessReport:
    bundle = BundleReport(bundle_id="next", status="refused" if error else "ready", error=error)
    return ProcessReport(process=process, started_at=0, at=0, serving=1, prepared=prepared, bundles=(bundle,))


def test_the_last_report_lies_between_the_two_looks(tmp_path: Path) -> None:
    """And one that is ready before the others, or alone, is not enough."""

    async def scenario() -> tuple[float, float, float, float]:
        store, asked = FileState(tmp_path, 60.0), perf_counter()
        await store.report(report_of("a", 2))
        looking = asyncio.create_task(all_ready(store, 2, 2, asked))
        await asyncio.sleep(0.03)
        await store.report(report_of("b", 1))
        await asyncio.sleep(0.03)
        assert not looking.done()
        before = perf_counter()
        await store.report(report_of("b", 2))
        after = perf_counter()
        return before, after, *await looking

    before, after, unready, ready = asyncio.run(scenario())
    assert unready < after
    assert before < ready


def test_a_wanted_bundle_is_the_next_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = FileState(tmp_path, 60.0)
        first = Change(at=0, who="who", why="why", action="first", before=0, after=1)
        await store.change(Desired(version=1, control=Overrides(bundle="world")), first)
        assert await want(store, "next") == 2
        wanted = (await store.look()).wanted
        assert wanted == Desired(version=2, control=Overrides(bundle="next"))

    asyncio.run(scenario())


def test_a_swap_that_is_not_served_says_why() -> None:
    reports = [report_of("a", 2), report_of("b", 1, error="psi 3 is above 0.2")]
    assert why_not("next", 120.0, reports) == "next is not served after 120 s: psi 3 is above 0.2"
    assert why_not("next", 120.0, reports[:1]) == "next is not served after 120 s: no process says why"


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_services_agree_over_redis(tmp_path: Path) -> None:
    """Two services of two processes each; every figure is of something that happened."""
    bundles = [make_world(tmp_path, Recipe()), make_world(tmp_path, Recipe(bundle_id="next", ads=299))]
    request = http_request("/v1/rank", json.dumps({"user_id": "nobody", "k": 5}).encode())
    cores = sorted(os.sched_getaffinity(0))
    report = measured(bundles, request, (cores[0], cores[-1]), 1, ANY_BUNDLE, tmp_path / "scratch")
    figures = report.figures
    assert (figures["swap.agreement.swaps"], figures["swap.agreement.processes"]) == (1, 4)
    assert 0 < figures["swap.agreement.seconds"] <= figures["swap.agreement.longest_seconds"]
    assert 0 < figures["swap.agreement.both_seconds"] <= figures["swap.agreement.longest_seconds"]
    assert figures["swap.agreement.ready_seconds"] > 0
    for i in range(2):
        log = (tmp_path / f"scratch/service-{i}/log.txt").read_text()
        assert log.count("version 2 is served, bundle next") == 2


@pytest.mark.parametrize(
    ("answered", "message"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nlater", "p: http/1.1 503.*later"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{", "p closed the connection with a request under way"),
    ],
)
def test_an_answer_that_is_none_is_no_time(answered: bytes, message: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answered)
        writer.close()
        await writer.wait_closed()

    async def ask() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            client = Client("p", *await asyncio.open_connection(*address))
            with pytest.raises(LoadError, match=message):
                await client.first_by("a", b"GET / HTTP/1.1\r\n\r\n")
            await client.close()

    asyncio.run(ask())


def test_the_old_bundles_answers_are_waited_out() -> None:
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        for bundle_id in ("old", "old", "new"):
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            body = json.dumps({"bundle_id": bundle_id}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()
        await writer.wait_closed()

    async def ask() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            client = Client("p", *await asyncio.open_connection(*server.sockets[0].getsockname()))
            await client.first_by("new", b"GET / HTTP/1.1\r\n\r\n")
            await client.close()

    asyncio.run(ask())
    assert asked == 3
