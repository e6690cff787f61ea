"""The commands of pages, as somebody types them: in a copy of the project, one shell line after the other.

Other tests run at the same time, so the ports of the service and of Redis are free ones instead of those that are
printed; and `.venv` is made of the packages that run the tests instead of being installed.
"""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Self

import httpx

from tests.docs.pages import ROOT
from tests.patience import PATIENCE_S, UNHURRIED, until
from tests.service.conftest import free_port

SERVES = re.compile(r"(\w+=\S+ )*(make run\b|adrank serve\b)")
ASKS = re.compile(r"adrank (release|experiment (?!shadow\b))")
"""Commands that ask the service at its usual address unless told otherwise."""
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", "artifacts", "tests", "__pycache__", ".*_cache", ".hypothesis", ".import_linter_cache"
)
COMMAND = "#!{python}\nimport sys\nfrom adrank import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


def copy_project(folder: Path) -> Path:
    """The working tree without tests and what commands left, with a `.venv` in which `adrank` is the copy's."""
    copy = folder / "adrank"
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
    environment = copy / ".venv"
    venv.create(environment, symlinks=True)
    paths = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "copy.pth").write_text("\n".join([str(copy), *sorted(ours)]))
    command = environment / "bin/adrank"
    command.write_text(COMMAND.format(python=environment / "bin/python"))
    command.chmod(0o755)
    (environment / ".installed").touch()  # newer than pyproject.toml: `make` installs nothing
    return copy


class Walk:
    """A shell in a copy of the project. A service that a line starts runs on until another is started, or the end."""

    def __init__(self, folder: Path, redis_port: int) -> None:
        self.folder = copy_project(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._redis_port = redis_port
        self._service: subprocess.Popen[bytes] | None = None
        self._said = folder / "service.log"
        path = f"{self.folder / '.venv/bin'}:{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ADRANK_")}
        self._environment = kept | UNHURRIED | {"PATH": path, "PORT": str(self.port), "ADRANK_PORT": str(self.port)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, line: str, codes: tuple[int, ...] = (0,)) -> str:
        """What the line prints. AssertionError with all of it when its exit code is none of `codes`."""
        said = line.replace(":8000", f":{self.port}").replace(":6379", f":{self._redis_port}")
        if ASKS.match(said):
            said += f" --url {self.url}"
        if SERVES.match(said):
            self._serve(said)
            return ""
        done = subprocess.run(
            ["bash", "-c", said],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode in codes, f"$ {line}\n{done.stdout}\nexit code {done.returncode}"
        return done.stdout

    def _serve(self, line: str) -> None:
        self._stop()
        with self._said.open("w") as said:
            self._service = subprocess.Popen(
                ["bash", "-c", line],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._is_ready)

    def _is_ready(self) -> bool:
        assert self._service is not None
        assert self._service.poll() is None, f"the service ended:\n{self._said.read_text()}"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1.0).is_success
        except httpx.TransportError:
            return False

    def _stop(self) -> None:
        """`make` and the workers of a service are in the group that the line began."""
        if self._service is not None:
            os.killpg(self._service.pid, signal.SIGTERM)
            self._service.wait(PATIENCE_S)
            until(self._is_gone)
            self._service = None

    def _is_gone(self) -> bool:
        assert self._service is not None
        try:
            os.killpg(self._service.pid, 0)
        except ProcessLookupError:
            return True
        return False
