"""The locked requirements are those that pyproject.toml asks for, each by hash."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service import version
from tests.deploy.dockerfile import stage_texts

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)(?:\[\S+\])?==(\S+?)(?: ;.*)? \\$", re.MULTILINE)


def locked(extra: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in ENTRY.findall(text_of(extra))}


def text_of(extra: str) -> str:
    return (ROOT / f"deploy/requirements/{extra}.txt").read_text()


@pytest.mark.parametrize("extra", ["cpu", "gpu", "outcomes", "loadtest"])
def test_every_dependency_is_locked_in_bounds(extra: str) -> None:
    found = locked(extra)
    bundles = OPTIONAL["s3"] if extra in ("cpu", "gpu") else []
    asked = [Requirement(each) for each in (*PROJECT["dependencies"], *OPTIONAL[extra], *bundles)]
    for each in asked:
        assert canonicalize_name(each.name) in found, f"{each} is not locked: run make lock"
        assert each.specifier.contains(found[canonicalize_name(each.name)]), f"{each}: {found[each.name]} is locked"


@pytest.mark.parametrize("extra", ["cpu", "gpu", "outcomes", "loadtest"])
def test_everything_has_a_hash(extra: str) -> None:
    blocks = re.split(r"\n(?=[a-z])", text_of(extra).strip())
    assert len(blocks) == len(ENTRY.findall(text_of(extra))) > 20
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_version_has_one_place() -> None:
    """What is built and what the service says of itself, in an image too, are the same."""
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in whole["project"]
    assert whole["project"]["dynamic"] == ["version"]
    assert (ROOT / whole["tool"]["hatch"]["version"]["path"]) == Path(version.__file__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version.VERSION)


def test_nothing_of_training_is_locked() -> None:
    assert not {"torch", "onnx", "polars", "scikit-learn"} & locked("cpu").keys()


def imported(path: Path) -> set[str]:
    """The packages that a file imports, however deep in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("target", ["cpu", "outcomes", "loadtest"])
def test_what_the_image_imports_is_locked(target: str) -> None:
    """Of every file that is copied into it; what is of the project must be copied as well."""
    steps = stage_texts(ROOT / "Dockerfile")["build" if target == "cpu" else f"build-{target}"][1]
    copied = [Path(said.split()[0]) for step, said in steps if step == "COPY" and "/app/" in said]
    files = [file for each in copied for file in ((ROOT / each).rglob("*.py") if each.suffix == "" else [ROOT / each])]
    assert len(files) > 10
    owners, there = packages_distributions(), locked(target)
    inside = {each.stem for each in copied} | sys.stdlib_module_names
    for file in files:
        for name in imported(file) - inside:
            assert {canonicalize_name(each) for each in owners.get(name, [])} & there.keys(), f"{file} imports {name}"
