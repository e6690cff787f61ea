"""A verdict holds for the bundle it was about, for a while, for all processes of the host."""

import asyncio
import os
from pathlib import Path

import pytest

from bundle.folder import SIGNATURE
from bundle.signature import make_key, sign
from control.reports import BundleReport
from service.errors import StartError
from service.verdicts import Verdict, Verdicts, fingerprint, key_of
from tests.service.world import make_world

READY = BundleReport(bundle_id="world", status="ready")
REFUSED = BundleReport(bundle_id="world", status="refused", error="golden")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_world(tmp_path / "bundles")


def test_a_verdict_is_found_while_it_is_fresh(tmp_path: Path, folder: Path) -> None:
    verdicts = Verdicts(tmp_path / "cache", 60)
    assert verdicts.find("a", folder) is None
    verdict = Verdict(report=READY, fingerprint=fingerprint(folder))
    verdicts.keep("a", verdict)
    assert Verdicts(tmp_path / "cache", 60).find("a", folder) == verdict
    assert verdicts.find("b", folder) is None
    os.utime(tmp_path / "cache/.gate/a.json", (0, 0))
    assert verdicts.find("a", folder) is None


def test_another_bundle_in_its_place_is_not_what_was_judged(tmp_path: Path, folder: Path) -> None:
    verdict = Verdict(report=READY, fingerprint=fingerprint(folder))
    assert verdict.holds_of(folder)
    os.utime(folder / "golden.npz", (1, 1))
    assert not verdict.holds_of(folder)
    signed = Verdict(report=READY, fingerprint=fingerprint(folder))
    make_key(tmp_path / "key.pem")
    sign(folder, tmp_path / "key.pem")
    assert (folder / SIGNATURE).is_file()
    assert not signed.holds_of(folder)


def test_a_refusal_also_holds_of_what_is_gone(tmp_path: Path, folder: Path) -> None:
    mark = fingerprint(folder)
    gone = tmp_path / "gone"
    assert fingerprint(gone) == ""
    assert Verdict(report=REFUSED, fingerprint=mark).holds_of(gone)
    assert not Verdict(report=READY, fingerprint=mark).holds_of(gone)
    assert not Verdict(report=REFUSED, fingerprint="").holds_of(folder)


def test_turns_are_one_after_the_other(tmp_path: Path) -> None:
    inside = most = 0

    async def one() -> None:
        nonlocal inside, most
        async with Verdicts(tmp_path / "cache", 60).turn("a"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(4)))

    asyncio.run(all_of_them())
    assert most == 1


def test_only_this_user_can_write_verdicts(tmp_path: Path) -> None:
    Verdicts(tmp_path / "cache", 60)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(StartError, match="cache has mode 777 and belongs to user"):
        Verdicts(tmp_path / "cache", 60)


def test_a_key_is_that_of_all_parts() -> None:
    keys = {key_of(parts) for parts in (["a", "b"], ["ab"], ["b", "a"], ["a", "b", ""])}
    assert len(keys) == 4
