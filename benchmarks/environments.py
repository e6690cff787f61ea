"""Environments of other libraries: one each, since their requirements contradict each other's and ours."""

import subprocess
import venv
from pathlib import Path

LONGEST_S = 1_200


def install(home: Path, requirements: Path) -> str | None:
    """Make the environment `home` anew with what `requirements` lists. None, or why it could not be done."""
    venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(home)
    command = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return f"pip took more than {LONGEST_S} s"
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        return " ".join(errors[-2:])[:300]
    return None


def version_in(python: str, distribution: str) -> str:
    """The version of a distribution as this interpreter has it; "?" when it has none."""
    program = f"from importlib.metadata import version; print(version({distribution!r}))"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    except OSError:
        return "?"
    return done.stdout.strip() or "?"
