"""The documentation as text: pages, code blocks, tables, links."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "bundle",
    "control",
    "outcomes",
    "models",
    "export",
    "service",
    "loadtest",
    "client",
    "examples",
    "benchmarks",
)
"""Ours, but for tests."""
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
"""README, CONTRIBUTING, CHANGELOG and docs/."""

FENCE = re.compile(r"^```(\w*)[ ]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")


class Block(NamedTuple):
    """A fenced block: its language, what follows on that line, and its text."""

    language: str
    title: str
    text: str


def read(name: str) -> str:
    """A page by its path from the root."""
    return (ROOT / name).read_text()


def name_of(page: Path) -> str:
    """A page's path from the root."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    return [Block(*found) for found in FENCE.findall(text)]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def commands(text: str) -> list[str]:
    """The lines of `console` blocks that begin with `$ `, without it; a backslash joins the next line."""
    found = []
    for block in blocks(text):
        if block.language == "console":
            joined = block.text.replace("\\\n", " ")
            found += [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]
    return found


def table(text: str, marker: str) -> list[list[str]]:
    """The cells of each row of the table under `<!-- marker -->`, head left out. AssertionError when there is none."""
    _, found, after = text.partition(f"<!-- {marker} -->\n")
    assert found, f"there is no <!-- {marker} -->"
    lines = after.strip("\n").splitlines()
    rows = lines[: next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    assert len(rows) > 2, f"no table follows <!-- {marker} -->"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def codes(cell: str) -> list[str]:
    """What stands in backticks in a cell."""
    return CODE.findall(cell)


def slug(heading: str) -> str:
    """The anchor GitHub gives a heading."""
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "").strip().lower())
    return re.sub(r"\s", "-", plain)


def anchors(text: str) -> set[str]:
    """The anchors of all headings of a page."""
    return {slug(line.lstrip("#")) for line in prose(text).splitlines() if re.match(r"#+ ", line)}
