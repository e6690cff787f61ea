"""Who trains: us and other libraries, each in a process of its own that waits while another has its turn."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "peers"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Not handed on: each job says how many."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another library."""

    name: str
    """Of the distribution, the folder of its environment and the file of its requirements."""
    program: str
    variants: tuple[str, ...] = ("library", "lean")
    """What its program can do: train as the library does, and in a plain loop over batches made before."""

    @property
    def requirements(self) -> Path:
        """What its environment holds."""
        return PROGRAMS / f"{self.name}.txt"

    def python(self, environments: Path) -> Path:
        """Its environment's interpreter."""
        return environments / self.name / "bin/python"

    def start(self, environments: Path) -> "Worker":
        """FileNotFoundError when its environment is not there."""
        python = self.python(environments)
        if not python.exists():
            raise FileNotFoundError(f"no environment {python.parents[1]}: adrank bench train --setup {self.name}")
        return Worker([str(python), str(PROGRAMS / self.program)], PROGRAMS)


PEERS = {
    peer.name: peer
    for peer in (Peer("torch-rechub", "torch_rechub_din.py"), Peer("deepctr-torch", "deepctr_torch_din.py"))
}


def start_ours() -> "Worker":
    """Our training, in this environment."""
    return Worker([sys.executable, "-m", "benchmarks.training.ours"], ROOT)


class Worker:
    """A process that answers jobs, one at a time."""

    def __init__(self, command: list[str], folder: Path) -> None:
        given = {name: value for name, value in os.environ.items() if name not in THREADS}
        self._said = TemporaryFile("w+")  # noqa: SIM115  a pipe that nobody reads would fill up and stop it
        self._process = subprocess.Popen(
            command, cwd=folder, env=given, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )

    def ask(self, job: Mapping[str, Any]) -> dict[str, float]:
        """The answer to one job. OSError with the last line it said when it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise OSError(self._last_words())
        found: dict[str, float] = json.loads(line)
        return found

    def stop(self) -> None:
        """End it and wait."""
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._said.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return lines[-1] if lines else f"it ended with code {code}"
