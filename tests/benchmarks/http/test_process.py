"""A server's processes are started, stopped and ended together."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from benchmarks.http.load import LoadError, ask, http_request
from benchmarks.http.process import (
    ServerProcess,
    StartError,
    clean_environment,
    ended_cleanly,
    free_port,
    on_core,
    two_cores,
)
from tests.patience import until

FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("started", flush=True)
time.sleep(60)
"""


def started(program: str, folder: Path) -> ServerProcess:
    core = min(os.sched_getaffinity(0))
    return ServerProcess([sys.executable, "-c", program], {}, folder, ("127.0.0.1", free_port()), core)


def wait_for(process: ServerProcess, n: int) -> list[int]:
    until(lambda: len(process.processes()) == n and "started" in process.log.read_text(), process.processes)
    return process.processes()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_all_of_a_family_is_stopped_resumed_and_ended(tmp_path: Path) -> None:
    """A child in the same session, and one that began its own."""
    process = started(FAMILY, tmp_path)
    try:
        family = wait_for(process, 3)
        assert process.memory_mb() > 3
        process.pause()
        assert [state(pid) for pid in family] == ["T"] * 3
        process.resume()
        assert [state(pid) for pid in family] != ["T"] * 3
    finally:
        process.stop()
    assert process.processes() == []


def test_a_family_runs_on_one_core(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    process = started(FAMILY, tmp_path)
    try:
        assert {tuple(os.sched_getaffinity(pid)) for pid in wait_for(process, 3)} == {(min(before),)}
        assert os.sched_getaffinity(0) == before
    finally:
        process.stop()


def test_processor_time_is_that_of_the_family(tmp_path: Path) -> None:
    busy = "import time\nprint('started', flush=True)\nwhile time.process_time() < 0.3: pass\ntime.sleep(60)"
    process = started(busy, tmp_path)
    try:
        wait_for(process, 1)
        until(lambda: process.cpu_s() >= 0.25)  # counted in ticks of 10 ms
        assert process.cpu_s() < 2
    finally:
        process.stop()


def test_a_server_that_ends_says_what_it_printed_last(tmp_path: Path) -> None:
    process = started("import sys; print('no such graph', file=sys.stderr); sys.exit(3)", tmp_path)
    with pytest.raises(StartError, match="ended with code 3: no such graph"):
        process.wait_until_it_answers(http_request("/", b""), 20.0)
    process.stop()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    process = started("import time; time.sleep(60)", tmp_path)
    try:
        with pytest.raises(StartError, match=r"no success within 0\.3 s .*Connection refused.*: it printed nothing"):
            process.wait_until_it_answers(http_request("/", b""), 0.3)
    finally:
        process.stop()


def test_a_server_answers_when_it_is_up(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import sys, http.server\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', '2'); self.end_headers()\n"
        "        self.wfile.write(b'ok')\n"
        f"http.server.HTTPServer(('127.0.0.1', {port}), Handler).serve_forever()"
    )
    core = min(os.sched_getaffinity(0))
    process = ServerProcess([sys.executable, "-c", program], {}, tmp_path, ("127.0.0.1", port), core)
    request = http_request("/", b"")
    try:
        assert process.wait_until_it_answers(request, 20.0) == b"ok"
    finally:
        process.stop()
    with pytest.raises((OSError, LoadError)):
        ask(process.address, request)


def test_what_would_change_a_server_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADRANK_WORKERS", "7")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:1")
    environment = clean_environment()
    assert not {"ADRANK_WORKERS", "PYTHONPATH", "RAY_ADDRESS"} & set(environment)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["PATH"] == os.environ["PATH"]


def test_a_termination_unwinds() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def ended() -> None:
        with ended_cleanly():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        ended()
    assert signal.getsignal(signal.SIGTERM) is before


def test_two_cores_are_needed() -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) > 1:
        cores = two_cores()
        assert cores.server != cores.load
        assert {cores.server, cores.load} <= allowed
    with on_core(min(allowed)), pytest.raises(ValueError, match=r"needs 2 cores, .* 1 here"):
        two_cores()
