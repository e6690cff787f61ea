"""The page needs no network, says what was found, and a browser draws it."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadtest.report import page
from loadtest.svg import Line, chart, decades, ticks
from tests.loadtest.results import result

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.parametrize(
    ("slow", "starved", "words"), [(False, False, "pass"), (True, False, "fail"), (True, True, "no verdict")]
)
def test_the_page_says_the_verdict(slow: bool, starved: bool, words: str) -> None:
    text = page(result(slow, starved))
    assert f"<title>Load test: {words}</title>" in text
    assert re.search(rf'id="verdict" class="verdict \w+">{words}<', text)
    assert ("does not hold" in text) or not slow
    assert "used 97% of a core" in text or not starved


def test_nothing_is_fetched_and_names_are_escaped() -> None:
    text = page(result())
    assert re.findall(r"(?:src|href)=|url\(|@import|<script|<link", text) == []
    assert set(re.findall(r"https?://[^<\s\"]+", text)) == {"http://127.0.0.1:8000,"}
    assert "&lt;demo&gt; &amp; co" in text
    assert "<demo>" not in text


def test_every_picture_is_whole() -> None:
    pictures = re.findall(r"<svg.*?</svg>", page(result(slow=True)))
    assert len(pictures) == 4
    for each in pictures:
        drawn = ElementTree.fromstring(each)
        width, height = (float(size) for size in drawn.attrib["viewBox"].split()[2:])
        for line in drawn.iter("polyline"):
            points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
            assert len(points) > 2
            assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
        for bar in drawn.iter("rect"):
            assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width
    assert "another bundle" in pictures[0]
    assert "finerank" in pictures[2]


def test_numbers_at_the_axes_are_round() -> None:
    assert ticks(0, 30) == [0, 5, 10, 15, 20, 25, 30]
    assert ticks(0.12, 0.95) == [0.2, 0.4, 0.6, 0.8]
    assert decades(3, 250) == [5, 10, 20, 50, 100, 200]
    assert chart([Line("none", [])], "x", "y") == "<p>No point to draw.</p>"
    assert "<svg" in chart([Line("one", [(1.0, 5.0)]), Line("zero", [(2.0, 0.0)])], "x", "y")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, which Debian has")
def test_a_browser_shows_it(tmp_path: Path) -> None:
    """Its own idea of the page after parsing, and a picture that is not blank."""
    assert CHROMIUM is not None
    (tmp_path / "report.html").write_text(page(result(slow=True)))
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/u"]
    where = (tmp_path / "report.html").as_uri()
    seen = subprocess.run(
        [CHROMIUM, *quiet, "--dump-dom", where], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    headings: list[str] = []

    class Reader(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.inside = tag in ("h1", "h2")

        def handle_data(self, data: str) -> None:
            if self.inside:
                headings.append(data)
            self.inside = False

    Reader().feed(seen)
    assert headings == ["Load test of bundle <demo> & co", "steady", "Coordinated omission", "Knee"]
    assert seen.count("<polyline") == 9
    shot = tmp_path / "report.png"
    command = [CHROMIUM, *quiet, f"--screenshot={shot}", "--window-size=1000,2400", "--hide-scrollbars", where]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert shot.stat().st_size > 30_000
