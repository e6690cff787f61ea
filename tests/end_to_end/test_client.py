"""The examples, and what docs/client.md prints, on a served bundle of the simulated marketplace."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import Client
from examples import rank_ads, rank_for_many
from tests.docs.pages import blocks, read
from tests.end_to_end.running import ROOT, serving

PATIENT = ["--default-deadline-ms", "8000", "--features-timeout-ms", "1500", "--redis-timeout-ms", "1000"]
TIME = ["--deadline-ms", "30000"]
"""A busy machine decides no test."""


@pytest.fixture(scope="module")
def url(exported: Path) -> Iterator[str]:
    with serving(exported, *PATIENT) as address:
        yield address


def test_one_ranking(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank_ads.main(["--url", url, *TIME]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines[:5]] == [f"{i}. ad " for i in range(1, 6)]
    assert re.match(r"[\d.]+ ms, of which the service took [\d.]+$", lines[5])


def test_a_hundred_rankings_and_their_events(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rank_for_many.main(["--url", url, *TIME]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "RankResponse: 100"
    assert "events: 100 taken, 300 of no history's kind" in said
    with Client(url) as client:
        assert client.rank("visitor-7").user == "known"


def test_nobody_there_is_one_line() -> None:
    command = [sys.executable, "-m", "examples.rank_ads", "--url", "http://127.0.0.1:9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert rank_for_many.main(["--url", "http://127.0.0.1:9", "--users", "2"]) == 1


def test_what_the_page_prints_runs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of its Python, in order; with more time."""
    names: dict[str, object] = {}
    printed = [block.text for block in blocks(read("docs/client.md")) if block.language == "python"]
    for text in printed:
        own = text.replace("http://127.0.0.1:8000", url).replace("deadline_ms=500", "deadline_ms=30_000")
        exec(compile(own, "docs/client.md", "exec"), names)
    said = capsys.readouterr().out
    assert len(printed) == 4
    assert len(re.findall(r"^[123] \d+ 0\.\d+ [\d.]+$", said, re.MULTILINE)) == 3
    assert "k at most 200 " in said
    answers = names["answers"]
    assert isinstance(answers, list)
    assert [len(answer.ads) for answer in answers] == [3] * 20
