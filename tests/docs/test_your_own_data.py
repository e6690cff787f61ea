"""docs/your-own-data.md, word for word: its files are written, its commands run, its ranking is answered."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import blocks, codes, commands, read, table
from tests.docs.walk import Walk

PAGE = read("docs/your-own-data.md")


@pytest.mark.slow
def test_the_page_leads_from_a_csv_to_a_ranking(walk: Walk) -> None:
    for block in blocks(PAGE):
        if block.title:
            (walk.folder / block.title).parent.mkdir(exist_ok=True)
            (walk.folder / block.title).write_text(block.text)
    printed = [walk.run(line) for line in commands(PAGE)]
    ranked, taken, filtered = (json.loads(each) for each in printed if each.startswith("{"))
    check_ranking(ranked)
    assert (taken["accepted"], taken["unknown_ads"]) == (1, 0)
    assert len(filtered["ads"]) == 3
    assert filtered["stages"][0]["note"] != ranked["stages"][0]["note"], "the filter leaves ads out"
    check_files(walk.folder / "shop")


def check_ranking(found: Any) -> None:
    """Fields and funnel are those shown; which ads come first may differ with the last bits of training."""
    shown = json.loads(next(block.text for block in blocks(PAGE) if block.language == "json"))
    assert list(found) == list(shown)
    funnel = [[(each["name"], each["in"], each["out"]) for each in answer["stages"]] for answer in (found, shown)]
    assert funnel[0] == funnel[1]
    assert (found["user"], found["bundle_id"], found["degraded"]) == ("known", "shop", [])
    assert [list(each) for each in found["ads"]] == [list(each) for each in shown["ads"]]
    worth = [each["ecpm"] for each in found["ads"]]
    assert worth == sorted(worth, reverse=True)


def check_files(folder: Path) -> None:
    """Columns and rows are as the page's table says."""
    for name, columns, rows in table(PAGE, "files"):
        head, *lines = (folder.parent / codes(name)[0]).read_text().splitlines()
        assert head.split(",") == columns.split(", ")
        assert f"{len(lines):,}" == rows.split(" ")[0]
        if "clicked" in rows:
            clicked = sum(int(line.split(",")[columns.split(", ").index("click")]) for line in lines)
            assert f", {clicked / len(lines):.0%} clicked".replace("%", " %") in rows
