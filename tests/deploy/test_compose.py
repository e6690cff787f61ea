"""docker-compose.yml: of the published schema, with what it mounts and reads there."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from service.settings import Settings

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
    assert COMPOSE["services"]["adrank"]["environment"].keys() <= known


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
        assert all(mount.endswith(":ro") for mount in each["volumes"])


def test_only_this_machine_is_let_in() -> None:
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
