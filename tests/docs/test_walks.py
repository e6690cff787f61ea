"""The commands of pages are run as printed, page by page, in a copy of the project."""

import shlex
import shutil
from pathlib import Path

import pytest

from bundle.folder import write_bundle
from bundle.manifest import MANIFEST, read_manifest
from export.assemble import FunnelSettings, Trained, assemble
from tests.docs.elsewhere import covered
from tests.docs.pages import CODE, commands, read
from tests.docs.small_kuairand import write_small_kuairand
from tests.docs.walk import Walk

VERDICTS = (0, 1, 3)
"""Exit codes of a load test that was carried out: what it finds is a matter of the machine."""


def go(walk: Walk, page: str) -> dict[str, str]:
    """What each line of a page prints that no other test runs."""
    lines = [line for line in commands(read(page)) if not covered(page, line)]
    return {line: walk.run(line, VERDICTS if line.startswith("adrank loadtest") else (0,)) for line in lines}


def check_audit(printed: dict[str, str]) -> None:
    """The audit log says why each change was made."""
    reasons = [shlex.split(line)[-1] for line in printed if "--why" in line]
    assert len(reasons) >= 3
    for reason in reasons:
        assert reason in printed["adrank release audit --limit 20"], reason


def call_it(bundle: Path, bundles: Path, bundle_id: str) -> None:
    """A copy of a bundle under another id."""

    def fill(folder: Path) -> None:
        shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)

    write_bundle(bundles, read_manifest(bundle).model_copy(update={"bundle_id": bundle_id}), fill)


@pytest.mark.slow
def test_the_readme_walks(walk: Walk, exported: Path) -> None:
    """Two things are smaller than for a reader: the demo bundle, which is there already, and KuaiRand's log."""
    call_it(exported, walk.folder / "artifacts/bundles", "demo")
    data = walk.folder / "../shared/data/kuairand"
    data.mkdir(parents=True)
    write_small_kuairand(data)
    printed = go(walk, "README.md")
    asked = {line: text for line, text in printed.items() if line.startswith("curl")}
    rank, ready, metrics = asked.values()
    assert rank.count('"ad_id"') == 3
    assert '"ready"' in ready
    assert "adrank_requests_total" in metrics
    check_audit(printed)
    assert (walk.folder / "report.html").is_file()


@pytest.mark.slow
def test_operating_walks(walk: Walk, trained: Trained) -> None:
    """Bundles, operations and experiments, on one service after the other and three bundles that differ in their id."""
    bundles = walk.folder / "artifacts/bundles"
    sizes = FunnelSettings(retrieval=120, qscore=80, prerank=40, finerank=20, interests=3, per_interest=10)
    demo, _ = assemble(trained, bundles, "demo", sizes)  # with all users: a page shows one of them
    for bundle_id in ("2026-01-08", "2026-01-09"):
        call_it(demo, bundles, bundle_id)
    assert "demo is whole" in go(walk, "docs/bundle.md")["adrank bundle verify artifacts/bundles/demo"]
    page = read("docs/operations.md")
    (walk.folder / "users.jsonl").write_text(next(each for each in CODE.findall(page) if '"events"' in each) + "\n")
    printed = go(walk, "docs/operations.md")
    assert any("click" in text for line, text in printed.items() if line.startswith("adrank features show"))
    printed = go(walk, "docs/experiments.md")
    check_audit(printed)
