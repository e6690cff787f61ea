"""docs/models.md: keys, defaults and metrics are those of the code."""

from typing import get_args

import numpy as np
import pytest
from pydantic import BaseModel

from models import prerankers
from models.config import RocketConfig, TrainConfig, TrainingConfig
from models.intervals import METRICS
from models.metrics import summary
from models.networks.config import LowRankConfig, ModelConfig, RelatedTask
from models.networks.network import POSITIONS
from models.training import SAVE_SECONDS
from tests.docs import keys
from tests.docs.pages import ROOT, codes, read, table

PAGE = read("docs/models.md")


CONFIGS = [*get_args(get_args(ModelConfig)[0]), TrainingConfig, RocketConfig, LowRankConfig, RelatedTask]


@pytest.mark.parametrize("model", CONFIGS)
def test_keys_are_those_of_the_configuration(model: type[BaseModel]) -> None:
    keys.check(PAGE, model)


def test_the_top_level_is_described() -> None:
    assert all(f"`{name}`" in PAGE for name in TrainConfig.model_fields)


def test_metrics_are_those_reported() -> None:
    found = summary(np.array([0, 1]), np.array([0.2, 0.4]), np.array([1, 1]))
    said = [name for row in table(PAGE, "metrics") for name in codes(row[0])]
    assert sorted(said) == sorted([*found, "best_auc"])


def test_the_funnels_figures_are_in_its_code() -> None:
    source = (ROOT / "models/funnel.py").read_text()
    for row in table(PAGE, "funnel"):
        for name in codes(row[0]):
            assert name.startswith("funnel.")
            assert name.removeprefix("funnel.") in source, name


def test_the_pre_rankers_figures_are_those_of_the_table() -> None:
    said = [name for row in table(PAGE, "prerankers") for name in codes(row[0])]
    assert said == [f"funnel.NAME.{column}" for column in prerankers.COLUMNS]


def test_the_leaderboards_keys_are_in_its_code() -> None:
    files = ("figures", "command")
    source = "".join((ROOT / f"benchmarks/leaderboard/{name}.py").read_text() for name in files)
    for row in table(PAGE, "leaderboard"):
        for name in codes(row[0]):
            last = name.rpartition(".")[2].removeprefix("d")
            assert last in source or last in METRICS, name


def test_numbers_are_those_of_the_code() -> None:
    assert f"({POSITIONS} of them" in PAGE
    assert SAVE_SECONDS == 60.0
    assert "at least once a minute" in PAGE


def test_the_place_for_results_is_marked() -> None:
    assert PAGE.index("<!-- results -->") < PAGE.index("<!-- /results -->")
