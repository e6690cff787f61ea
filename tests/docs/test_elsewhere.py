"""Every documented command is run by some test, and the lists that say which are true."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.elsewhere import ELSEWHERE, WALKED, covered
from tests.docs.pages import PAGES, ROOT, commands, name_of, read

LINES = [(name_of(page), line) for page in PAGES for line in commands(page.read_text())]
NAMED = {*WALKED.values(), *(test for page, line in LINES for test in covered(page, line))}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_run(page: Path) -> None:
    for name, line in LINES:
        if name == name_of(page):
            known = name in WALKED or covered(name, line)
            assert known, f"no test runs `{line}` of {name}: see tests/docs/elsewhere.py"


@pytest.mark.parametrize("test", sorted(NAMED))
def test_tests_that_are_named_exist(test: str) -> None:
    file, _, name = test.partition("::")
    assert (ROOT / file).is_file(), test
    tree = ast.parse((ROOT / file).read_text())
    assert not name or name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


def test_no_entry_is_left_over() -> None:
    for begin in {begin for entries in ELSEWHERE.values() for begin in entries}:
        pages = [page for page, entries in ELSEWHERE.items() if begin in entries]
        lines = [line for page in pages for line in commands(read(page))]
        assert any(re.match(begin, line) for line in lines), f"{pages} have no line like {begin}"


def test_docker_alone_is_not_run_because_it_is_not_there() -> None:
    """Its steps are carried out without it by tests/deploy; nothing else hides behind that."""
    for page, line in LINES:
        by_steps = any(test.startswith("tests/deploy/") for test in covered(page, line))
        assert line.startswith("docker ") == by_steps, line
