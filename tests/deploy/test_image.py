"""The image: its Dockerfile carried out step by step in clean folders, then run as the image would be."""

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundle.folder import open_bundle
from service.example import example_request
from service.version import VERSION
from tests.deploy.dockerfile import Stage, build, instructions, stage_texts
from tests.patience import PATIENCE_S, until
from tests.service.conftest import RedisServer, free_port
from tests.service.test_serve import served
from tests.service.world import make_world

ROOT = Path(__file__).parents[2]
KEY = "the-key-of-callers"
DOCKERFILE = ROOT / "Dockerfile"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """What `docker build --target cpu` leaves, from the files that .dockerignore lets through."""
    return build(DOCKERFILE, ROOT, "cpu", tmp_path_factory.mktemp("image"))


@contextmanager
def running(image: Stage, bundle: Path, **settings: str) -> Iterator[tuple["subprocess.Popen[bytes]", dict[str, str]]]:
    """The image's own command, with nothing in its environment but what the image and the settings say."""
    environment = image.environment() | {"ADRANK_BUNDLE": str(bundle), "ADRANK_PORT": str(free_port())} | settings
    words = [*image.entrypoint, *image.command]
    program = shutil.which(words[0], path=environment["PATH"])
    assert program is not None
    assert program.startswith(str(image.root)), "the image's own interpreter runs it"
    process = subprocess.Popen(
        [program, *words[1:]], cwd=image.place(image.workdir), env=environment, start_new_session=True
    )
    try:
        yield process, environment
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_S)


def healthy(image: Stage, environment: dict[str, str]) -> bool:
    check = image.healthcheck
    program = shutil.which(check[0], path=environment["PATH"])
    assert program is not None
    return subprocess.run([program, *check[1:]], env=environment, capture_output=True, check=False).returncode == 0


def contents(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.lstat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.slow
def test_the_image_serves_is_healthy_writes_nothing_and_ends_cleanly(image: Stage, tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    before = contents(image.root)
    keys = {"ADRANK_API_KEY": KEY, "ADRANK_ADMIN_KEY": "the-key-of-operators", "ADRANK_DRAIN_SECONDS": "0.5"}
    with running(image, folder, **keys) as (process, environment):
        until(lambda: process.poll() is not None or healthy(image, environment), every_s=0.2)
        assert process.poll() is None, "it ended"
        body = json.dumps(example_request(open_bundle(folder))).encode()
        url = f"http://127.0.0.1:{environment['ADRANK_PORT']}/v1/rank"
        shown = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        request = urllib.request.Request(url, body, shown)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            assert json.load(answer)["ads"]
        with urllib.request.urlopen(url.replace("/v1/rank", "/openapi.json"), timeout=PATIENCE_S) as answer:
            assert json.load(answer)["info"]["version"] == VERSION
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert not healthy(image, environment)
    assert contents(image.root) == before, "the root file system is read-only"


@pytest.mark.slow
def test_only_the_serving_half_is_inside(image: Stage) -> None:
    inside = {path.name for path in image.place("/app").iterdir()}
    assert inside == {"adrank.py", "bundle", "control", "service"}
    packages = {path.name for path in image.place("/opt/venv").glob("lib/python*/site-packages/*")}
    assert not packages & {"torch", "onnx", "polars", "pyarrow", "sklearn", "scipy", "pytest"}
    assert {"onnxruntime", "fastapi"} <= packages


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """The images beside the service: each step carried out, but that packages are lent (test_requirements.py holds what
    is imported against what would be installed)."""
    folder = tmp_path_factory.mktemp("tools")
    return {name: build(DOCKERFILE, ROOT, name, folder / name, lent=True) for name in ("outcomes", "loadtest")}


def carried_out(image: Stage, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A command of the image, to its end."""
    environment = image.environment() | variables
    program = shutil.which(image.entrypoint[0], path=environment["PATH"])
    assert program is not None
    command = [program, *image.entrypoint[1:], *words]
    where = image.place(image.workdir)
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)


def test_each_holds_its_own_half_alone(tools: dict[str, Stage]) -> None:
    inside = {name: {path.name for path in each.place("/app").iterdir()} for name, each in tools.items()}
    assert inside["outcomes"] == {"adrank.py", "bundle", "control", "outcomes"}
    assert {"adrank.py", "loadtest"} <= inside["loadtest"] <= {"adrank.py", "loadtest", "client"}
    for each in tools.values():
        assert carried_out(each, *each.command).returncode == 0
        assert carried_out(each, "serve").returncode != 0


def test_the_collector_of_the_image_collects(
    tools: dict[str, Stage], redis_server: RedisServer, tmp_path: Path
) -> None:
    image = tools["outcomes"]
    assert image.owners == {"/outcomes": image.user}, "the volume that is mounted there must be its own"
    before = contents(image.root)
    done = carried_out(image, "outcomes", "--redis", redis_server.url, "--out", str(tmp_path), "--once")
    assert done.returncode == 0, done.stderr
    assert contents(image.root) == before, "the root file system is read-only"


@pytest.mark.slow
def test_the_load_generator_of_the_image_asks_with_the_key(
    tools: dict[str, Stage], folder: Path, tmp_path: Path
) -> None:
    image = tools["loadtest"]
    before = contents(image.root)
    found = tmp_path / "found.json"
    options = ["--scenario", "steady", "--seconds", "1", "--rate", "20", "--json", str(found)]
    with served(folder, "--api-key", KEY) as service:
        asked = ["loadtest", "--url", service.url, *options]
        stranger = carried_out(image, *asked)
        done = carried_out(image, *asked, ADRANK_API_KEY=KEY)
    assert (stranger.returncode, "401" in stranger.stderr) == (2, True), stranger.stderr
    assert done.returncode in (0, 1, 3), done.stderr  # whether the machine is fast enough is not asked here
    assert json.loads(found.read_text())["stretches"]
    assert contents(image.root) == before, "the root file system is read-only"


@pytest.mark.parametrize("target", ["cpu", "gpu", "outcomes", "loadtest"])
def test_it_does_not_run_as_root(target: str) -> None:
    _, steps = stage_texts(DOCKERFILE)[target]
    assert [said for step, said in steps if step == "USER"] == ["10001:10001"]
    assert any(step == "HEALTHCHECK" for step, _ in steps) is (target in ("cpu", "gpu"))


def test_what_is_copied_is_not_ignored() -> None:
    """.dockerignore shuts out everything but what COPY takes from the context."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    let_in = {line[1:] for line in lines if line.startswith("!")}
    steps = instructions(DOCKERFILE.read_text())
    taken = {said.split()[0] for step, said in steps if step == "COPY" and not said.startswith("--from=")}
    assert {str(Path(each).parent) if "requirements" in each else each for each in taken} == let_in


def test_the_linter_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")  # of the wheel: beside the interpreter, perhaps not in PATH
    done = subprocess.run(
        [hadolint, "--failure-threshold", "info", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
