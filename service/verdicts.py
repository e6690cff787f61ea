"""What the gate said, shared by the processes of one host: one of them asks it, the others go by its verdict."""

import asyncio
import fcntl
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import ValidationError

from bundle.folder import SIGNATURE
from bundle.manifest import MANIFEST
from control.reports import BundleReport
from control.state import Frozen
from service.errors import StartError

LOOK_S = 0.05
"""Between two attempts to get the turn."""
FORGOTTEN_S = 3600.0
"""Files of verdicts are removed after so long."""


class Verdict(Frozen):
    """What was said of a bundle, and of which files."""

    report: BundleReport
    fingerprint: str
    """Of the folder when it was judged; empty where there was none."""

    @property
    def passed(self) -> bool:
        """Whether the bundle may be loaded."""
        return self.report.status == "ready"

    def holds_of(self, folder: Path) -> bool:
        """Whether what is there now is what was judged. A refusal also holds of what is gone."""
        now = fingerprint(folder)
        return now == self.fingerprint or (not self.passed and now == "")


class Verdicts:
    """Verdicts of this host, in a folder that only this user can write to."""

    def __init__(self, cache: Path, max_age_s: float) -> None:
        """`cache`: the folder beside whose bundles they are kept; made where it is not there. StartError for one that
        others can write to: they could let any bundle pass."""
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = cache.stat()
        if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
            raise StartError(
                f"{cache} has mode {stat.st_mode & 0o777:o} and belongs to user {stat.st_uid}: others than user "
                f"{os.getuid()} must not write to it; set bundle_cache to another folder"
            )
        self._folder, self._max_age_s = cache / ".gate", max_age_s
        self._folder.mkdir(mode=0o700, exist_ok=True)

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """One process at a time for each key. The system lets go of the lock of a process that dies."""
        with (self._folder / f"{key}.lock").open("wb") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(LOOK_S)
            yield

    def find(self, key: str, folder: Path) -> Verdict | None:
        """What was said of the bundle in `folder`, if that is not too long ago and still about what is there."""
        path = self._path(key)
        try:
            age, text = time.time() - path.stat().st_mtime, path.read_bytes()
            verdict = Verdict.model_validate_json(text)
        except (FileNotFoundError, ValidationError):
            return None
        return verdict if age <= self._max_age_s and verdict.holds_of(folder) else None

    def keep(self, key: str, verdict: Verdict) -> None:
        """For the other processes."""
        path = self._path(key)
        building = path.with_suffix(f".{os.getpid()}")
        building.write_text(verdict.model_dump_json())
        building.replace(path)
        for old in self._folder.iterdir():
            if old.suffix == ".json" and time.time() - old.stat().st_mtime > FORGOTTEN_S:
                old.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def key_of(parts: Sequence[str]) -> str:
    """One name for all that a verdict depends on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def fingerprint(folder: Path) -> str:
    """Changes when a bundle does: manifest and signatures, size and time of every file. Empty without a manifest.

    Nothing else is read, so it takes microseconds a file, not the time to read them.
    """
    digest = hashlib.sha256()
    try:
        digest.update((folder / MANIFEST).read_bytes())
    except OSError:
        return ""
    if (folder / SIGNATURE).is_file():
        digest.update((folder / SIGNATURE).read_bytes())
    for path in sorted(folder.rglob("*")):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n".encode())
    return digest.hexdigest()
