"""One small network, ready to be served by everybody."""

import pytest
import torch

from benchmarks.http.material import Material, make_material

ADS = 2_000


@pytest.fixture(scope="package")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    torch.set_num_threads(1)
    return make_material(tmp_path_factory.mktemp("bundles"), tmp_path_factory.mktemp("weights"), "light", ADS)
