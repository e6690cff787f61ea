"""The table, its place in the page, and the pictures."""

from pathlib import Path

import pytest

from benchmarks.leaderboard.page import CLOSE, OPEN, ordered, picture_names, section, table, write_section
from benchmarks.leaderboard.pictures import draw

FIGURES = {
    "kuairand.rows": 130_639.0,
    "kuairand.users": 20_000.0,
    "kuairand.seeds": 3.0,
    "kuairand.din.auc": 0.7222,
    "kuairand.din.auc_std": 0.0008,
    "kuairand.din.gauc": 0.638,
    "kuairand.din.logloss": 0.605,
    "kuairand.din.calibration": 1.01,
    "kuairand.din.parameters": 123_456.0,
    "kuairand.din.multiply_adds": 68_000.0,
    "kuairand.din.epoch_s": 61.5,
    "kuairand.din.ms_500": 4.125,
    "kuairand.gwen.auc": 0.7241,
    "kuairand.gwen.gauc": 0.6395,
    "kuairand.gwen.logloss": 0.606,
    "kuairand.gwen.calibration": 0.99,
    "kuairand.gwen.dauc": 0.0019,
    "kuairand.gwen.dauc_low": -0.0003,
    "kuairand.gwen.dauc_high": 0.0041,
    "kuairand.gwen.dgauc": 0.0015,
    "kuairand.gwen.dgauc_low": 0.0001,
    "kuairand.gwen.dgauc_high": 0.0029,
    "kuairand.gwen.dlogloss": 0.001,
    "kuairand.gwen.dlogloss_low": 0.0005,
    "kuairand.gwen.dlogloss_high": 0.0015,
    "kuairand.gwen.epoch_s": 9.51,
    "kuairand.gwen.ms_500": 0.5,
    "marketplace.din.auc": 0.9,
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_row_a_model_the_best_first_and_dashes_for_what_is_not_there() -> None:
    assert ordered(FIGURES, "kuairand") == ["gwen", "din"]
    head, rule, gwen, din = table(FIGURES, "kuairand")
    assert len({len(line) for line in (head, rule, gwen, din)}) == 1
    assert cells(gwen) == [
        "gwen", "0.7241", "0.6395", "0.6060", "0.9900", "+0.0019 (-0.0003 to +0.0041)", "+0.0015 (+0.0001 to +0.0029)",
        "+0.0010 (+0.0005 to +0.0015)", "–", "–", "9.5", "0.50",
    ]  # fmt: skip
    assert cells(din) == [
        "din", "0.7222 ± 0.0008", "0.6380", "0.6050", "1.0100", "–", "–", "–", "123,456", "68,000", "62", "4.12",
    ]  # fmt: skip


def test_the_section_says_how_it_was_measured() -> None:
    lines = section(FIGURES | {"kuairand.best_auc": 0.8}, "kuairand", "din", 500, {"machine": "m", "commit": "c"})
    text = " ".join(lines)
    assert lines[0] == "### KuaiRand"
    for said in (
        "130,639 impressions of 20,000 users",
        "3 seeds",
        "500 draws",
        "against `din`",
        "machine: m; commit: c",
    ):
        assert said in text
    assert "true click probability has AUC 0.8000" in text
    assert all(f"(pictures/{name})" in text for name in picture_names("kuairand"))


def test_each_data_set_has_its_place(tmp_path: Path) -> None:
    page = tmp_path / "models.md"
    page.write_text(f"before\n\n{OPEN}\nNothing yet.\n{CLOSE}\n\nafter\n")
    write_section(page, "marketplace", ["m", "1"])
    assert page.read_text() == (
        f"before\n\n{OPEN}\n<!-- results of marketplace -->\nm\n1\n<!-- /results of marketplace -->\n{CLOSE}\n\nafter\n"
    )
    write_section(page, "kuairand", ["k"])
    write_section(page, "marketplace", ["m", "2"])
    text = page.read_text()
    assert text.count("results of marketplace") == text.count("results of kuairand") == 2
    assert "m\n2\n" in text
    assert "m\n1\n" not in text
    assert text.index("\nk\n") < text.index("m\n2\n")
    assert text.startswith("before\n")
    assert text.endswith(f"{CLOSE}\n\nafter\n")
    once = page.read_text()
    write_section(page, "kuairand", ["k"])
    assert page.read_text() == once


@pytest.mark.parametrize("text", ["", OPEN, f"{CLOSE}{OPEN}"])
def test_a_page_without_a_place_is_refused(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page\.md: has no <!-- results -->"):
        write_section(page, "kuairand", [])
    assert page.read_text() == text


def test_pictures_show_every_model_and_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(FIGURES, "kuairand", "din", tmp_path / name)
    differences, times = ((tmp_path / "a" / name).read_text() for name in picture_names("kuairand"))
    assert "<!-- gwen -->" in differences
    assert "GAUC minus that of din" in differences
    assert "<!-- gwen -->" in times
    assert "<!-- din -->" in times
    for name in picture_names("kuairand"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
