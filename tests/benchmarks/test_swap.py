"""What the benchmark of swaps counts."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import perf_counter

import numpy as np
import pytest

from benchmarks.http.load import http_request
from benchmarks.report import Report
from benchmarks.swap_driver import let_run
from benchmarks.swap_figures import SETTLE_S, Ranking, interval, judge, tell
from benchmarks.swap_load import CONNECTIONS, Answer, offered
from benchmarks.swap_steps import tell_steps
from service.loading import WARM_UP_RUNS
from tests.service.world import make_world

EXPECTED: dict[str, list[Ranking]] = {"a": [[(1, 0.5), (2, 0.4)]], "b": [[(2, 0.6), (1, 0.1)]]}


def answer(
    started: float, ms: float, bundle_id: str = "a", of: str = "a", status: int = 200, degraded: tuple[str, ...] = ()
) -> Answer:
    ads = [{"ad_id": ad_id, "pctr": pctr} for ad_id, pctr in EXPECTED[of][0]]
    return Answer(
        0, started, ms, status, json.dumps({"bundle_id": bundle_id, "ads": ads, "degraded": degraded}).encode()
    )


def test_an_answer_that_is_not_its_bundles_is_mixed() -> None:
    judged = judge(
        [answer(0, 1), answer(0, 1, "b", "b"), answer(0, 1, "b", "a"), answer(0, 1, status=503)], EXPECTED, []
    )
    assert (judged.mixed, judged.failed) == (1, 1)


def test_a_degraded_answer_is_not_mixed_but_counted() -> None:
    judged = judge([answer(0, 1, "b", "a", degraded=("user_features: timeout",))], EXPECTED, [])
    assert (judged.mixed, judged.degraded, judged.failed) == (0, 1, 0)


def test_a_request_belongs_to_a_swap_by_its_intended_start() -> None:
    starts = [0.9, 1.0, 2.0 + SETTLE_S, 2.01 + SETTLE_S]
    judged = judge([answer(start, i) for i, start in enumerate(starts)], EXPECTED, [(1.0, 2.0)])
    assert (judged.swapping.tolist(), judged.steady.tolist()) == ([1, 2], [0, 3])


def test_a_block_is_a_swap_with_the_steady_state_after_it() -> None:
    starts = [0.0, 1.0, 3.9, 4.0, 9.0]
    judged = judge([answer(start, 1) for start in starts], EXPECTED, [(1.0, 2.0), (4.0, 5.0)])
    assert judged.block.tolist() == [0, 0, 0, 1, 1]


def test_figures_are_ratios_of_the_same_run() -> None:
    report = Report("swap")
    windows = [(4.0, 6.0), (10.0, 11.0)]
    judged = judge([answer(0, 2.0), answer(5, 4.0), answer(10, 4.0), answer(15, 2.0)], EXPECTED, windows)
    tell(report, "one core", "swap", judged, windows, [0.1, 0.2], 100.0)
    figures = report.figures
    assert (figures["swap.p99_ratio"], figures["swap.p50_ratio"]) == (2.0, 2.0)
    assert (figures["swap.p99_ratio_low"], figures["swap.p99_ratio_high"]) == (2.0, 2.0)  # each swap says the same
    assert (figures["swap.requests"], figures["swap.requests_during"]) == (4, 2)
    assert (figures["swap.seconds"], figures["swap.longest_seconds"]) == (1.5, 2.0)
    assert np.isfinite(list(figures.values())).all()


def test_the_interval_goes_by_swaps_not_by_requests() -> None:
    """One swap of four is slow, in all its requests."""
    windows = [(10.0 * i, 10.0 * i + 2) for i in range(4)]
    answers = [answer(start + k / 100, 20.0 if start == 10.0 else 2.0) for start, _ in windows for k in range(100)] + [
        answer(start + 5 + k / 100, 2.0) for start, _ in windows for k in range(100)
    ]
    assert interval(judge(answers, EXPECTED, windows), 0.99) == (1.0, 10.0)


def test_the_load_keeps_every_answer_and_sends_at_its_times() -> None:
    class Echo(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200 if body != b"no" else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 2 * CONNECTIONS

    with Server(("127.0.0.1", 0), Echo) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        begin = perf_counter() + 0.2
        starts = [begin + 0.02 * i for i in range(10)]
        requests = [http_request("/", body) for body in (b"a", b"b", b"no")]
        answers, late = offered(("127.0.0.1", server.server_address[1]), requests, starts)
        server.shutdown()
    assert sorted(each.started for each in answers) == starts
    assert {(each.request, each.status, each.body) for each in answers} == {
        (0, 200, b"a"),
        (1, 200, b"b"),
        (2, 503, b"no"),
    }
    assert len(late) == 10
    assert min(late) >= 0


def test_children_are_let_run_on_other_cores() -> None:
    cores = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        os.sched_setaffinity(child.pid, {min(cores)})
        let_run(os.getpid(), cores)
        assert os.sched_getaffinity(child.pid) == cores
        child.communicate(b"\n")
    with pytest.raises(OSError, match="no lists of children"):
        let_run(child.pid, cores)


def test_steps_of_loading_are_told(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    report = Report("swap")
    tell_steps(report, [folder])
    assert [(row[0], row[1]) for row in report.tables[0].rows] == [
        ("opening", 1),
        ("session", 2),
        ("golden row", 2),
        ("warm-up", WARM_UP_RUNS),
    ]
    assert 0 < report.figures["swap.longest_step_ms"] < report.figures["swap.load_ms"]
