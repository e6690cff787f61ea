"""What the commands that change a running service share: whom they ask, who asks, and waiting until it is served."""

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from control.changes import AnyChange
from control.client import Admin, AdminError
from control.reports import StateAnswer

KEY_VARIABLE = "ADRANK_ADMIN_KEY"
WAIT_S = 300.0


def asking(
    parser: argparse.ArgumentParser, url: str | None = "http://127.0.0.1:8000", what: str = "the service [%(default)s]"
) -> None:
    """Add where the service is, without an option `url`, and what key it wants."""
    parser.add_argument("--url", default=url, metavar="URL", help=what)
    parser.add_argument(
        "--key-file", metavar="FILE", help=f"file with the key of the setting admin_key [the variable {KEY_VARIABLE}]"
    )


def with_redis(parser: argparse.ArgumentParser) -> None:
    """Add the Redis of the service: its users' records, and what it logs."""
    parser.add_argument(
        "--redis",
        default=os.environ.get("ADRANK_REDIS_URL"),
        metavar="URL",
        help="redis://host:port/db [ADRANK_REDIS_URL]",
    )
    parser.add_argument(
        "--prefix",
        default=os.environ.get("ADRANK_REDIS_PREFIX", "adrank:user:"),
        help="the service's redis_prefix [%(default)s]",
    )


def changing(parser: argparse.ArgumentParser) -> None:
    """Add what every change says beside what it is."""
    asking(parser)
    parser.add_argument("--why", required=True, help="for the audit log")
    parser.add_argument("--who", default=None, help="for the audit log [the name of the user who runs the command]")
    parser.add_argument("--expected", type=int, metavar="VERSION", help="refuse unless this is the version there is")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until all processes serve it")
    parser.add_argument(
        "--timeout", type=float, default=WAIT_S, metavar="S", help="longest wait in seconds [%(default)g]"
    )


def admin_of(arguments: argparse.Namespace) -> Admin:
    """The admin endpoints that the arguments name. OSError for a key file that cannot be read."""
    return Admin(arguments.url, key_of(arguments.key_file, KEY_VARIABLE), who_of(arguments))


def key_of(file: str | None, variable: str) -> str | None:
    """The key in the file, else in the variable, else None. Of two with a comma between, which a service takes while
    one follows the other, the first. OSError for a file that cannot be read."""
    said = os.environ.get(variable) if file is None else Path(file).read_text(encoding="utf-8")
    return said.partition(",")[0].strip() if said else None


def who_of(arguments: argparse.Namespace) -> str:
    """Who asks."""
    given: str | None = getattr(arguments, "who", None)
    return given or getpass.getuser()


def said(arguments: argparse.Namespace) -> dict[str, Any]:
    """What every change says beside what it is."""
    return {"who": who_of(arguments), "why": arguments.why, "expected": arguments.expected}


def carry_out(arguments: argparse.Namespace, change: AnyChange) -> int:
    """Make the change and wait until it is served. 0; AdminError otherwise."""
    with admin_of(arguments) as admin:
        version = admin.change(change)
        print(f"version {version} is wanted")
        if not arguments.no_wait:
            show = sys.stderr.isatty()
            state = admin.wait(version, arguments.timeout, _progress if show else lambda _: None)
            if show:
                print(file=sys.stderr)
            print(f"version {version} is served by {len(state.processes)} of {len(state.processes)} processes")
    return 0


def run(name: str, parser: argparse.ArgumentParser, argv: list[str]) -> int:
    """Parse and carry out. An expected error is one line; 1: the service refused, 2: what was asked is wrong."""
    arguments = parser.parse_args(argv)
    act: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return act(arguments)
    except AdminError as error:
        print(f"adrank {name} {arguments.action}: {error}", file=sys.stderr)
        return 1
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        print(f"adrank {name} {arguments.action}: {'; '.join(wrong)}", file=sys.stderr)
        return 2


def _progress(state: StateAnswer) -> None:
    wanted = state.wanted.version if state.wanted is not None else 0
    prepared = sum(process.prepared >= wanted for process in state.processes)
    serving = sum(process.serving >= wanted for process in state.processes)
    of = len(state.processes)
    print(f"\rprepared by {prepared} of {of} processes, served by {serving}", end="", file=sys.stderr, flush=True)
