"""One small network, ready to be served by everybody."""

from pathlib import Path

import pytest
import torch

from benchmarks.http.material import Material, make_material
from tests.benchmarks.conftest import ADS


@pytest.fixture(scope="package")
def material(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    torch.set_num_threads(1)
    made = make_material(work.parent, tmp_path_factory.mktemp("weights"), "light", ADS)
    assert made.bundle == work
    return made
