"""The real thing: `adrank serve` as a process, over HTTP."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.listener import listen
from service.serve import main
from tests.patience import PATIENCE_S, UNHURRIED
from tests.service.conftest import RedisServer, free_port
from tests.service.world import Recipe, make_world

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^curl .*$", re.MULTILINE)


class Served:
    """A running service and what it printed until it was ready."""

    def __init__(self, process: subprocess.Popen[str], url: str, printed: str) -> None:
        self.process = process
        self.url = url
        self.printed = printed


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    patient = ["--default-deadline-ms", "8000", "--features-timeout-ms", "1500", "--redis-timeout-ms", "1000"]
    process = subprocess.Popen(
        [sys.executable, "adrank.py", "serve", "--bundle", str(folder), "--port", "0", *patient, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("ADRANK_")} | UNHURRIED,
    )
    try:
        assert process.stdout is not None
        printed = ""
        while not LINE.search(printed):
            line = process.stdout.readline()
            assert line, f"the service ended: {printed}"
            printed += line
        found = re.search(r"http://[\d.:]+", printed)
        assert found
        yield Served(process, found[0], printed)
    finally:
        if process.poll() is None:
            process.terminate()  # with workers, killing the parent would leave them
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(PATIENCE_S)
        assert process.stdout is not None
        process.stdout.close()


def test_a_served_bundle_from_start_to_end(folder: Path) -> None:
    with served(folder) as service:
        assert "bundle world: 300 ads" in service.printed
        curl = LINE.search(service.printed)
        assert curl
        answer = subprocess.run(shlex.split(curl[0]), capture_output=True, text=True, check=True)
        assert '"user":"known"' in answer.stdout
        assert '"degraded":[]' in answer.stdout
        with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client:
            assert client.get("/readyz").json()["bundle_id"] == "world"
            scored = client.post("/v1/score", json={"user_id": "anna", "ads": list(range(1000, 1300))})
            assert len(scored.json()["pctr"]) == 300
            assert client.post("/v1/rank", content=b"[" * 2_000_000).status_code == 413
            assert client.post("/v1/rank", json={"user_id": "anna", "k": -1}).json()["error"]["field"] == "k"
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE_S) == 0


def test_several_workers_share_users_and_metrics(folder: Path, redis_server: RedisServer) -> None:
    options = ["--workers", "2", "--redis-url", redis_server.url, "--redis-prefix", "workers:"]
    with served(folder, *options) as service:
        for i in range(40):  # new connections, so that both workers get some
            event = {"events": [{"user_id": i, "kind": "click", "ad_id": 1000}]}
            assert httpx.post(f"{service.url}/v1/events", json=event, timeout=PATIENCE_S).json()["accepted"] == 1
            answer = httpx.post(f"{service.url}/v1/rank", timeout=PATIENCE_S, json={"user_id": i})
            assert answer.json()["user"] == "known"
        text = httpx.get(f"{service.url}/metrics", timeout=PATIENCE_S).text
        assert 'adrank_requests_total{route="/v1/rank",status="200"} 40.0' in text
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE_S) == 0


def test_a_start_that_cannot_succeed_is_one_line_and_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        bad = make_world(tmp_path, Recipe(golden_shift=1.0))
        good = ["--bundle", str(folder), "--port", str(free_port())]
        for arguments, words in (
            ([], "bundle: Field required"),
            (["--bundle", str(tmp_path / "none")], "none/manifest.json: cannot be read: No such file or directory"),
            (["--bundle", str(bad), "--port", "0"], "differs from the golden rows by 1"),
            (["--bundle", str(folder), "--port", port], f"cannot listen on 127.0.0.1:{port}: Address already in use"),
            ([*good, "--provider", "tensorrt"], "available: "),
            ([*good, "--max-k", "zero"], "max_k"),
            ([*good, "--redis-url", "nonsense"], "redis_url 'nonsense' cannot be used"),
        ):
            assert main(list(arguments)) == 2, arguments
            lines = capsys.readouterr().err.strip().splitlines()
            assert len(lines) == 1, lines
            assert words in lines[0]
            assert lines[0].startswith("adrank serve: ")


def test_help_describes_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "--redis-url" in text
    assert "--prerank-keep" in text
    assert "ADRANK_BUNDLE" in text


def test_the_service_loads_nothing_of_training_and_export(folder: Path) -> None:
    program = f"""
import asyncio, sys
from service.app import create_app
from service.settings import read_settings
import service.serve, service.features_command
app = create_app(read_settings(bundle={str(folder)!r}))
async def start():
    async with app.router.lifespan_context(app):
        pass
asyncio.run(start())
heavy = ("torch", "onnx", "models", "export", "polars", "pyarrow", "sklearn", "pandas", "scipy", "fastapi.testclient")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("own_process", [False, True])
def test_what_a_process_of_its_own_starts_with_is_no_longer_searched_for_garbage(
    folder: Path, own_process: bool
) -> None:
    program = f"""
import asyncio, gc
from service.app import create_app
from service.settings import read_settings
async def start():
    app = create_app(read_settings(bundle={str(folder)!r}), own_process={own_process})
    async with app.router.lifespan_context(app):
        print(gc.get_freeze_count() > 10_000)
asyncio.run(start())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(own_process)


def test_importing_makes_nothing(folder: Path) -> None:
    program = "import threading, service.app, service.serve; print(threading.active_count())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_connections_do_not_wait_for_acknowledgements() -> None:
    """Worker processes get the bare descriptor, so the option must be the listener's own and be inherited."""
    with listen("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_second_service_on_the_port_fails_before_it_loads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert main(["--bundle", str(folder), "--port", str(port)]) == 2
    assert capsys.readouterr().err.startswith(
        f"adrank serve: cannot listen on 127.0.0.1:{port}: Address already in use"
    )
