"""docker-compose.yml: of the published schema, with what it mounts and reads there."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings, read_settings
from tests.deploy.dockerfile import stage_texts

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_it_is_of_the_published_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, "docker-compose.yml"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_mounted_is_there() -> None:
    mounts = [mount.split(":")[0] for each in COMPOSE["services"].values() for mount in each.get("volumes", [])]
    files = [mount for mount in mounts if mount.startswith("./")]
    assert files
    for mount in files:
        assert (ROOT / mount).exists(), mount
    named = {mount for mount in mounts if not mount.startswith((".", "$"))}
    assert named == COMPOSE["volumes"].keys()


def test_settings_are_those_of_the_service() -> None:
    known = {f"ADRANK_{name.upper()}" for name in Settings.model_fields}
    for each in COMPOSE["services"].values():
        if each["image"].startswith("adrank:"):
            assert each.get("environment", {}).keys() <= known


def test_the_service_starts_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the image sets the host, with keys in place of those of .env; and has time enough to end."""
    service = COMPOSE["services"]["adrank"]
    for name, value in (service["environment"] | {"ADRANK_HOST": "0.0.0.0"}).items():
        plain = re.sub(r"\$\{(\w+):\?.*\}", r"a-key-for-\1", value)
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(\w+)\}", r"\1", plain))
    settings = read_settings()
    assert (settings.workers, settings.api_key) == (2, "a-key-for-ADRANK_API_KEY")
    assert settings.draining_s + settings.shutdown_seconds < int(service["stop_grace_period"].removesuffix("s"))


@pytest.mark.parametrize("name", ["features", "loadtest", "outcomes"])
def test_what_the_profiles_run_is_a_command(name: str) -> None:
    """Its target is there, and its parser takes the words."""
    service = COMPOSE["services"][name]
    assert service["profiles"] == [name]
    assert service["build"]["target"] in stage_texts(ROOT / "Dockerfile")
    command, *words = (re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in service["command"])
    program = [sys.executable, "adrank.py", command, *words, "--no-such"]
    wrong = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.stderr.strip().splitlines()[-1].endswith("unrecognized arguments: --no-such")


def test_variables_are_in_the_example() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    needed = set(re.findall(r"\$\{(\w+)", text))
    offered = set(re.findall(r"^(\w+)=", (ROOT / "deploy/env.example").read_text(), re.MULTILINE))
    assert needed - {"BUNDLES"} == offered


def test_nothing_of_ours_can_write_to_its_image_or_gain_rights() -> None:
    ours = [each for each in COMPOSE["services"].values() if each.get("image", "").startswith("adrank:")]
    assert ours
    for each in ours:
        assert each["read_only"]
        assert each["cap_drop"] == ["ALL"]
        written = [mount for mount in each.get("volumes", []) if not mount.endswith(":ro")]
        assert written == (["outcomes:/outcomes"] if each["image"] == "adrank:outcomes" else [])


def test_only_this_machine_is_let_in() -> None:
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
