"""One bundle of the standard work for all benchmarks that only need one."""

from pathlib import Path

import pytest

from benchmarks.bundles import work_bundle

ADS, USERS = 3_000, 1_000


@pytest.fixture(scope="session")
def work_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `work_bundle` finds `work` again."""
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="session")
def work(work_root: Path) -> Path:
    """The bundle of ADS ads and USERS users with the light unit."""
    return work_bundle(work_root, ADS, "light", users=USERS)
