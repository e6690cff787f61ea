"""The record of a recipe says what each step changed, dropped fields by name; a recipe of table steps resumes."""

from pathlib import Path

import pytest
import torch

from models.checkpoint import open_checkpoint
from models.compression.pipeline import changes, compress
from models.compression.recipe import Recipe, read_recipe
from models.compression.report import table
from models.networks.config import GwenConfig, TableConfig
from tests.models.compression.small_subject import GWEN, shop
from tests.models.growing import trained


@pytest.mark.parametrize("path", sorted(Path("models/configs/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_the_repository_are_read(path: Path) -> None:
    assert read_recipe(path).steps


def test_changes_name_the_dropped_fields() -> None:
    before = GwenConfig(kind="gwen")
    after = before.model_copy(
        update={"dropped_fields": ("user.city",), "tables": {"ad": TableConfig(method="hash", rows=9)}}
    )
    assert changes(before, before) == ()
    assert changes(before, after) == (
        'tables: {"ad": {"method": "hash", "rows": 9}}',
        'dropped_fields: ["user.city"]',
    )


def test_many_tables_that_changed_alike_are_counted() -> None:
    before = GwenConfig(kind="gwen")
    tables = {f"t{i}": TableConfig(values="int4" if i else "int8") for i in range(5)}
    after = before.model_copy(update={"tables": tables})
    assert changes(before, after) == ('tables: {"values": "int8"} of 1, {"values": "int4"} of 4',)


def test_a_recipe_of_table_steps(tmp_path: Path) -> None:
    data = shop(tmp_path)
    original = trained(GWEN, data, tmp_path / "original", embedding_l2=0.01)
    recipe = Recipe.model_validate(
        {
            "name": "small",
            "steps": [
                {"step": "narrow_tables", "tables": ["ad"], "dimension": 2},
                {"step": "hash", "tables": ["ad"], "rows": 12},
                {"step": "select_fields", "keep": 9, "steps": 3},
                {"step": "fine_tune"},
            ],
        }
    )
    found = compress(original, recipe, data, tmp_path / "out", seed=1, progress=False)
    again = compress(original, recipe, data, tmp_path / "out", seed=1, progress=False)
    assert found.record == again.record
    sizes = [each.figures["table_bytes"] for each in found.record.steps]
    assert sizes[0] > sizes[1] > sizes[2] >= sizes[3] == sizes[4]
    model = open_checkpoint(tmp_path / "out").network()
    for name, value in found.subject.network.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    dropped = found.subject.embedded.dropped_fields
    assert len(dropped) == 1, "10 fields: two of the user, a scene, four of the ad, three of a history"
    assert dropped[0] in table(found.record.steps)
