"""The image: its Dockerfile carried out step by step in clean folders, then run as the image would be."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundle.folder import open_bundle
from service.example import example_request
from tests.deploy.dockerfile import Stage, build, instructions
from tests.service.conftest import free_port
from tests.service.world import make_world

ROOT = Path(__file__).parents[2]
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
            process.wait(20)


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
    with running(image, folder, ADRANK_ADMIN_KEY="a key for this test") as (process, environment):
        end = time.monotonic() + 60
        while not healthy(image, environment):
            assert process.poll() is None, "it ended"
            assert time.monotonic() < end, "it never got healthy"
            time.sleep(0.2)
        body = json.dumps(example_request(open_bundle(folder))).encode()
        url = f"http://127.0.0.1:{environment['ADRANK_PORT']}/v1/rank"
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["ads"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not healthy(image, environment)
    assert contents(image.root) == before, "the root file system is read-only"


@pytest.mark.slow
def test_only_the_serving_half_is_inside(image: Stage) -> None:
    inside = {path.name for path in image.place("/app").iterdir()}
    assert inside == {"adrank.py", "bundle", "control", "service"}
    packages = {path.name for path in image.place("/opt/venv").glob("lib/python*/site-packages/*")}
    assert not packages & {"torch", "onnx", "polars", "pyarrow", "sklearn", "scipy", "pytest"}
    assert {"onnxruntime", "fastapi"} <= packages


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_it_does_not_run_as_root(target: str) -> None:
    steps = instructions(DOCKERFILE.read_text())
    start = next(i for i, (step, said) in enumerate(steps) if step == "FROM" and said.endswith(f" AS {target}"))
    end = next((i for i, (step, _) in enumerate(steps) if step == "FROM" and i > start), len(steps))
    users = [said for step, said in steps[start:end] if step == "USER"]
    assert users == ["10001:10001"]
    assert any(step == "HEALTHCHECK" for step, _ in steps[start:end])


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
