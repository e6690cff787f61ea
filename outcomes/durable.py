"""Files that are whole or not there: written beside, flushed to the disk, renamed."""

import os
from collections.abc import Callable
from pathlib import Path

PART = ".part"
"""Ends the name of a file that is being written. One that is found is left over from a crash."""


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Have `fill` write a file, which then takes the place of `path` in one step. After a crash of the process or the
    machine there is the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}{PART}")
    fill(part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.rename(path)
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """See `write`."""
    write(path, lambda part: part.write_bytes(content))


def sync_folder(folder: Path) -> None:
    """The names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clear(root: Path) -> None:
    """Remove what crashes left half written below `root`."""
    for path in root.rglob(f".*{PART}"):
        path.unlink()
