"""SHA-256 of source files, remembered by place, size and time: a large log is read for it once, not at every command.

A log that is copied, or whose times change otherwise, keeps its digest, and so the data and checkpoints made from it.
"""

import hashlib
import json
import os
from pathlib import Path


class Digests:
    """Digests of files, kept in a JSON file; None keeps nothing."""

    def __init__(self, kept: Path | None = None) -> None:
        self.kept = kept

    def of(self, paths: list[Path]) -> list[str]:
        """SHA-256 of each file, in hexadecimal."""
        known = self._read()
        found = {str(path.resolve()): _stamp(path) for path in paths}
        fresh = {
            place: [*stamp, _digest(Path(place))] for place, stamp in found.items() if known.get(place, [])[:2] != stamp
        }
        if fresh and self.kept is not None:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.kept.with_name(f"{self.kept.name}.{os.getpid()}.tmp")
            temporary.write_text(json.dumps(known | fresh, indent=1))
            temporary.replace(self.kept)
        return [str((known | fresh)[str(path.resolve())][2]) for path in paths]

    def _read(self) -> dict[str, list[int | str]]:
        """What is known; nothing where the file is not there or none of ours: digests are then made again."""
        if self.kept is None or not self.kept.exists():
            return {}
        try:
            content = json.loads(self.kept.read_text())
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
