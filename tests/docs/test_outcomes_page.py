"""docs/outcomes.md: the tables have the columns and types that are written."""

import pytest

from outcomes.tables import TABLES
from tests.docs.pages import codes, read, table


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_are_those_that_are_written(name: str) -> None:
    said = {codes(column)[0]: kind for column, kind, _ in table(read("docs/outcomes.md"), f"columns {name}")}
    assert said == {column: str(kind) for column, kind in TABLES[name].items()}
