"""Environments of the peers: one each, since their requirements contradict each other's and ours."""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.http.servers import PEERS

LONGEST_S = 1_200


def set_up(names: Sequence[str], root: Path) -> list[str]:
    """Make the environment of each peer anew under `root`. One line a peer: installed, or why not.

    ValueError for a name that is none.
    """
    if strange := sorted(set(names) - set(PEERS)):
        raise ValueError(f"there is no peer {strange[0]!r}; known: {', '.join(PEERS)}")
    return [_set_up(name, root) for name in names or PEERS]


def _set_up(name: str, root: Path) -> str:
    peer = PEERS[name]
    home = peer.home(root)
    if home is None:
        return f"{name}: runs in this environment"
    print(f"{name}: {home} ...", file=sys.stderr)
    venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(home)
    command = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--requirement", str(peer.requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return f"{name}: not installed: pip took more than {LONGEST_S} s"
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        return f"{name}: not installed: {' '.join(errors[-2:])[:300]}"
    return f"{name}: installed {version_of(name, root)}"


def version_of(name: str, root: Path) -> str:
    """The peer's version in its environment; "?" when it has none."""
    peer = PEERS[name]
    home = peer.home(root)
    python = sys.executable if home is None else str(home / "bin/python")
    program = f"from importlib.metadata import version; print(version({peer.distribution!r}))"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    except OSError:
        return "?"
    return done.stdout.strip() or "?"
