"""Environments of the peers that serve."""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environments import install, version_in
from benchmarks.http.servers import PEERS


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
    error = install(home, peer.requirements)
    return f"{name}: not installed: {error}" if error else f"{name}: installed {version_of(name, root)}"


def version_of(name: str, root: Path) -> str:
    """The peer's version in its environment; "?" when it has none."""
    home = PEERS[name].home(root)
    return version_in(sys.executable if home is None else str(home / "bin/python"), PEERS[name].distribution)
