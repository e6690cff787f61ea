"""The desired state in a folder, which processes of one machine or of a shared file system follow.

    wanted.json          {"change": ..., "state": ...}: the newest version, and how it came about
    agreed.json          the agreed version, in the same form
    versions/N.json      the last KEPT versions, in the same form
    audit.jsonl          one change a line, oldest first
    processes/NAME.json  the last report of each process
    lock                 held by whoever writes

Every file is written beside and renamed, and `wanted.json` is what makes a change: a process that is killed before that
has changed nothing, and what it had still to do afterwards, the line of the audit log, is done by the next change.
Reports count by their files' times against that of a file that was just written, so by the clock of the file system.
"""

import asyncio
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from control.reports import ProcessReport
from control.state import Change, Desired, Frozen
from service.errors import ConflictError, StoreError
from service.state_stores import Known

T = TypeVar("T")
KEPT = 100
"""Versions that can be gone back to."""
LOCK_S = 2.0
"""Longest wait for who writes; each takes a few milliseconds."""
FORGET = 20
"""A dead process's report is removed after so many times what it counts for."""


class Entry(Frozen):
    """One version and the change that made it."""

    change: Change
    state: Desired


class FileState:
    """A StateStore in a folder. Files are read and written in threads."""

    def __init__(self, folder: Path, ttl_s: float, *, temporary: bool = False) -> None:
        """A report counts for `ttl_s`. A `temporary` folder is removed at the end."""
        self.folder = folder
        self._ttl_s = ttl_s
        self._temporary = temporary
        self._read: dict[str, tuple[tuple[int, int, int], Entry]] = {}

    async def look(self) -> Known:
        """See StateStore. Two calls of stat when nothing changed."""
        return await self._do(self._look)

    async def change(self, state: Desired, change: Change) -> None:
        """See StateStore. On disk when it returns."""
        await self._do(lambda: self._change(Entry(change=change, state=state)))

    async def agree(self, version: int) -> bool:
        """See StateStore."""
        return await self._do(lambda: self._agree(version))

    async def version(self, version: int) -> Desired | None:
        """See StateStore."""
        return await self._do(lambda: self._version(version))

    async def report(self, report: ProcessReport) -> None:
        """See StateStore."""
        await self._do(lambda: self._report(report))

    async def leave(self, process: str) -> None:
        """See StateStore."""
        await self._do(lambda: self._report_of(process).unlink(missing_ok=True))

    async def processes(self) -> list[ProcessReport]:
        """See StateStore."""
        return await self._do(self._processes)

    async def audit(self, limit: int) -> list[Change]:
        """See StateStore."""
        return await self._do(lambda: self._audit(limit))

    async def close(self) -> None:
        """See StateStore."""
        if self._temporary:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (OSError, ValidationError) as error:
            raise StoreError(f"the state in {self.folder}: {str(error)[:300]}") from error

    def _look(self) -> Known:
        wanted, agreed = self._entry("wanted.json"), self._entry("agreed.json")
        return Known(None if wanted is None else wanted.state, None if agreed is None else agreed.state)

    def _version(self, version: int) -> Desired | None:
        wanted, entry = self._entry("wanted.json"), self._entry(f"versions/{version}.json")
        if wanted is None or entry is None or version > wanted.state.version:  # of a change that was cut off
            return None
        return entry.state

    def _change(self, entry: Entry) -> None:
        with self._locked():
            last = self._entry("wanted.json")
            if (found := 0 if last is None else last.state.version) != entry.change.before:
                raise ConflictError(entry.change.before, found)
            if last is not None:
                self._note(last.change)
            text = entry.model_dump_json()
            self._write(f"versions/{entry.state.version}.json", text)
            self._write("wanted.json", text)
            self._note(entry.change)
            self._prune(entry.state.version)

    def _agree(self, version: int) -> bool:
        with self._locked():
            wanted, agreed = self._entry("wanted.json"), self._entry("agreed.json")
            if wanted is None or wanted.state.version != version:
                return False
            if agreed == wanted:
                return True
            if any(each.serving and each.prepared != version for each in self._processes()):
                return False
            self._write("agreed.json", wanted.model_dump_json())
            return True

    def _report(self, report: ProcessReport) -> None:
        with self._locked():  # none comes between what another agrees on and what it saw of us
            path = self._report_of(report.process)
            path.parent.mkdir(exist_ok=True)
            self._write(path.relative_to(self.folder).as_posix(), report.model_dump_json(), lasting=False)

    def _processes(self) -> list[ProcessReport]:
        found = []
        now = self._now()
        for path in sorted((self.folder / "processes").glob("*.json")):
            with suppress(FileNotFoundError):  # it has just left
                age = now - path.stat().st_mtime
                if age <= self._ttl_s:
                    found.append(ProcessReport.model_validate_json(path.read_bytes()))
                elif age > FORGET * self._ttl_s:
                    path.unlink()
        return found

    def _now(self) -> float:
        """By the file system's clock."""
        self._make_folder()
        path = self.folder / "clock"
        path.touch()
        return path.stat().st_mtime

    def _audit(self, limit: int) -> list[Change]:
        lines: list[Change] = []
        with suppress(FileNotFoundError), (self.folder / "audit.jsonl").open("rb") as file:
            lines = [Change.model_validate_json(line) for line in file.readlines()[-limit:] if line.endswith(b"\n")]
        last = self._entry("wanted.json")
        if last is not None and (not lines or lines[-1] != last.change):
            lines.append(last.change)
        return lines[::-1][:limit]

    def _note(self, change: Change) -> None:
        """Append to the audit log what is not its last line yet. A line that was cut off is ended first."""
        line = change.model_dump_json().encode() + b"\n"
        with (self.folder / "audit.jsonl").open("ab+") as file:
            file.seek(0)
            text = file.read()
            if text.endswith(line):
                return
            if not text.endswith(b"\n"):
                file.truncate(text.rfind(b"\n") + 1)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _prune(self, newest: int) -> None:
        """Remove versions that are not kept any more."""
        for path in (self.folder / "versions").glob("*.json"):
            if path.stem.isdigit() and int(path.stem) <= newest - KEPT:
                path.unlink(missing_ok=True)

    def _entry(self, name: str) -> Entry | None:
        """What a file holds, read again only when it is another one; None when there is none."""
        path = self.folder / name
        try:
            stat = path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            known = self._read.get(name)
            if known is not None and known[0] == seen:
                return known[1]
            entry = Entry.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        if not name.startswith("versions/"):
            self._read[name] = (seen, entry)
        return entry

    def _write(self, name: str, text: str, *, lasting: bool = True) -> None:
        """Replace a file as a whole; `lasting`: it is on disk afterwards."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with beside.open("w") as file:
            file.write(text)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
        if lasting:
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _report_of(self, process: str) -> Path:
        return self.folder / "processes" / (re.sub(r"[^A-Za-z0-9.-]", "_", process) + ".json")

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700 if self._temporary else 0o777, parents=True, exist_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all processes. StoreError when another holds the lock for too long; the system takes it from one
        that was killed."""
        self._make_folder()
        with (self.folder / "lock").open("w") as file:
            end = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > end:
                        raise StoreError(f"the state in {self.folder} is locked for {LOCK_S:g} s") from error
                    time.sleep(0.005)
            yield
