"""Every command line in the README, and on the other pages, would be taken as printed."""

import re
from pathlib import Path

import pytest

from tests.docs.command_lines import check
from tests.docs.pages import LINK, PAGES, ROOT, commands, name_of, prose, read, table


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist_with_their_options(page: Path) -> None:
    for line in commands(page.read_text()):
        check(line)


def test_the_readme_has_the_two_commands() -> None:
    assert commands(read("README.md"))[:2] == ["make run", "make test"]


def test_configurations_that_commands_name_exist() -> None:
    for page in PAGES:
        for line in commands(page.read_text()):
            for path in re.findall(r"models/configs/[^\s']+", line):
                assert any(each.is_file() for each in ROOT.glob(path)), f"{name_of(page)}: {line}: {path} is not there"


def test_measured_figures_are_on_the_pages_they_are_from() -> None:
    rows = table(read("README.md"), "measured")
    for what, ours, theirs, command in rows:
        place = LINK.findall(what)[0].partition("#")[0]
        page = prose(read(place))
        for figure in re.findall(r"[−\d.,]*\d", re.sub(r"FuxiCTR [\d.]+|10\S ads", "", f"{ours}; {theirs}")):
            assert figure in page, f"README.md has {figure} in {what!r}, {place} has not"
        assert "`adrank " in command


def test_the_pictures_milliseconds_are_those_of_the_performance_page() -> None:
    """The column of a million ads; what is done for the user alone is one figure in the picture."""
    section = read("docs/performance.md").partition("## The whole funnel")[2].partition("all, p99")[0]
    rows = re.findall(r"^\| ([\w, -]+) \|(?: [\d.]* \|){2} ([\d.]+) \|", section, re.MULTILINE)
    found = {name: float(ms) for name, ms in rows}
    parts = [found[name] for name in ("retrieval", "Qscore", "pre-rank", "fine-rank", "auction")]
    user = found["unpack"] + found["encode"]
    shown = re.findall(r">([\d.]+) ms<", read("docs/pictures/funnel.svg"))
    assert sorted(shown) == sorted(f"{ms:.2f}" for ms in (user, *parts, found["all, p50"]))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("adrank fly", "there is no adrank fly"),
        ("adrank train --data DIR", "arguments are required"),
        ("adrank train a.yaml --data DIR --speed 3", "unrecognized arguments: --speed 3"),
        ("adrank serve --bundel x", "no --bundel"),
        ("adrank features load --redis redis://h:1", "--bundle --file is required"),
        ("make coffee", "make has no coffee"),
        ("make run SUGAR=2", "make has no SUGAR"),
        ("ADRANK_SUGAR=2 adrank serve", "there is no setting ADRANK_SUGAR"),
        ("wget example.org", "wget is not known"),
    ],
)
def test_a_line_that_would_fail_is_found(line: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        check(line)
