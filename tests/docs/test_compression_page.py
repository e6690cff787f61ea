"""docs/compression.md: keys and defaults are those of the code."""

from typing import get_args

import pytest
from pydantic import BaseModel

from models.compression.recipe import Step
from models.networks.config import TableConfig
from tests.docs import keys
from tests.docs.pages import read

PAGE = read("docs/compression.md")
KINDS = get_args(get_args(Step)[0])


@pytest.mark.parametrize("model", [TableConfig, *KINDS])
def test_keys_are_those_of_the_configuration_and_the_steps(model: type[BaseModel]) -> None:
    keys.check(PAGE, model)
