"""Links lead somewhere, paths exist, and the pages speak of the project only."""

import ast
import re
from pathlib import Path

import pytest

from adrank import COMMANDS
from tests.docs.pages import CODE, LINK, PACKAGES, PAGES, ROOT, anchors, blocks, commands, name_of, prose

OURS = (*PACKAGES, "tests", "docs", ".ci")
PATH = re.compile(rf"(?:{'|'.join(map(re.escape, OURS))})/[\w./-]*")
FORBIDDEN = re.compile(r"/(work|tmp|root|home)/|TODO|FIXME|@@")
TEST = re.compile(r"(tests/[\w/]+\.py)(?:::(\w+))?")

every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def test_the_pages_are_there() -> None:
    found = {name_of(page) for page in PAGES}
    wanted = {"architecture", "bundle", "data", "models", "api", "operations", "performance"}
    assert found >= {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{name}.md" for name in wanted)}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page.read_text())):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{name_of(page)} links to {target}, which is not there"
        assert place.is_relative_to(ROOT), f"{name_of(page)} links to {target}, outside of the project"
        if anchor:
            assert anchor in anchors(place.read_text()), f"{name_of(page)} links to {target}: no such heading"


@every_page
def test_paths_exist(page: Path) -> None:
    for code in CODE.findall(prose(page.read_text())):
        if PATH.fullmatch(code):
            assert (ROOT / code).exists(), f"{name_of(page)} names {code}, which is not there"


@every_page
def test_tests_that_are_named_exist(page: Path) -> None:
    for file, test in TEST.findall(page.read_text()):
        assert (ROOT / file).is_file(), f"{name_of(page)} names {file}, which is not there"
        tree = ast.parse((ROOT / file).read_text())
        known = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert not test or test in known, f"{name_of(page)} names {file}::{test}, which is not there"


@every_page
def test_pages_speak_of_the_project_only(page: Path) -> None:
    found = FORBIDDEN.findall(page.read_text())
    assert not found, f"{name_of(page)} says {found}"


@every_page
def test_headings_of_contents_are_all_there(page: Path) -> None:
    """A page that begins with a list of its sections lists all of them."""
    text = prose(page.read_text())
    listed = re.findall(r"^- \[[^\]]+\]\(#([^)]+)\)$", text, re.MULTILINE)
    if listed:
        sections = [line for line in text.splitlines() if line.startswith("## ")]
        assert len(listed) == len(sections), f"{name_of(page)} lists {len(listed)} of {len(sections)} sections"


def test_every_decision_has_its_parts_and_a_number_of_its_own() -> None:
    records = sorted((ROOT / "docs/decisions").glob("*.md"))
    for number, record in enumerate(records, 1):
        text = record.read_text()
        assert record.name.startswith(f"{number:04d}-")
        assert text.startswith(f"# {number}. ")
        for part in ("**Context.**", "**Decision.**", "**Consequence.**"):
            assert text.count(part) == 1, f"{record.name}: {part}"


def test_every_command_is_documented() -> None:
    said = "\n".join(line for page in PAGES for line in commands(page.read_text()))
    for name in COMMANDS:
        mentions = any(f"adrank {name}" in page.read_text() for page in PAGES)
        assert mentions, f"adrank {name} is on no page"
    for name in set(COMMANDS) - {"demo"}:  # which `make run` calls
        assert re.search(rf"\badrank {name}\b", said), f"adrank {name} has no example"


def test_the_marketplace_is_called_simulated_wherever_it_is_described() -> None:
    for page in PAGES:
        text = page.read_text()
        if re.search(r"marketplace", prose(text)):
            assert "simulat" in text.lower(), name_of(page)


def test_blocks_are_closed_and_have_a_language_we_know() -> None:
    known = {"", "console", "json", "yaml", "csv", "python"}
    for page in PAGES:
        text = page.read_text()
        assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(text)), name_of(page)
        assert {block.language for block in blocks(text)} <= known, name_of(page)
