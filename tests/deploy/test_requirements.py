"""The locked requirements are those that pyproject.toml asks for, each by hash."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)(?:\[\S+\])?==(\S+?)(?: ;.*)? \\$", re.MULTILINE)


def locked(extra: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in ENTRY.findall(text_of(extra))}


def text_of(extra: str) -> str:
    return (ROOT / f"deploy/requirements/{extra}.txt").read_text()


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_every_dependency_is_locked_in_bounds(extra: str) -> None:
    found = locked(extra)
    asked = [Requirement(each) for each in (*PROJECT["dependencies"], *OPTIONAL[extra], *OPTIONAL["s3"])]
    for each in asked:
        assert canonicalize_name(each.name) in found, f"{each} is not locked: run make lock"
        assert each.specifier.contains(found[canonicalize_name(each.name)]), f"{each}: {found[each.name]} is locked"


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_everything_has_a_hash(extra: str) -> None:
    blocks = re.split(r"\n(?=[a-z])", text_of(extra).strip())
    assert len(blocks) == len(ENTRY.findall(text_of(extra))) > 20
    assert all("--hash=sha256:" in block for block in blocks)


def test_nothing_of_training_is_locked() -> None:
    assert not {"torch", "onnx", "polars", "scikit-learn"} & locked("cpu").keys()
