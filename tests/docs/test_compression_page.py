"""docs/compression.md: keys and defaults are those of the code."""

from typing import get_args

import pytest
from pydantic import BaseModel

from models.compression.recipe import Step
from tests.docs import keys
from tests.docs.pages import read

PAGE = read("docs/compression.md")
KINDS = get_args(get_args(Step)[0]) or (get_args(Step)[0],)


@pytest.mark.parametrize("step", KINDS)
def test_keys_are_those_of_the_steps(step: type[BaseModel]) -> None:
    keys.check(PAGE, step)
