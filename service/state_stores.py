"""Where the desired state is kept, and how processes agree on a version of it: the protocol.

A change replaces the wanted state. Every process prepares what it needs, and reports. Once every process that is alive
and serves has prepared the wanted version, whoever sees it first makes it the agreed one; all serve the agreed version.
A process that refuses a bundle says so in its report: the wanted version is then never agreed on, and the one before
goes on. One that serves nothing yet is not waited for: it will begin with what is agreed on by then.

Who is alive is decided by the store's clock, not by those of the processes: a report counts for a time to live.
"""

from dataclasses import dataclass
from typing import Protocol

from control.reports import ProcessReport
from control.state import Change, Desired


@dataclass(frozen=True, slots=True)
class Known:
    """What a look at the store tells."""

    wanted: Desired | None
    """The newest state; None: there is none yet."""
    agreed: Desired | None
    """The one to be served; None: no version was agreed on yet."""


class StateStore(Protocol):
    """The desired state. Every method raises StoreError when the store fails."""

    async def look(self) -> Known:
        """The newest state and the agreed one. Cheap: every process asks several times a second."""

    async def change(self, state: Desired, change: Change) -> None:
        """Replace version `change.before` by `state`, whose version is one higher, and append to the audit log, in one
        step. 0 is no state at all, which any version may follow: a store that lost its state gets it back from those
        who serve it. ConflictError when another change came first."""

    async def agree(self, version: int) -> bool:
        """Make `version` the agreed one if it is still the wanted one and all who are alive and serve have prepared it,
        in one step; whether it is agreed on now."""

    async def version(self, version: int) -> Desired | None:
        """An earlier state, as long as it is kept."""

    async def report(self, report: ProcessReport) -> None:
        """Take a process's report in place of its last one."""

    async def leave(self, process: str) -> None:
        """The process ends: nobody waits for it."""

    async def processes(self) -> list[ProcessReport]:
        """The last reports of processes that are alive, by name."""

    async def audit(self, limit: int) -> list[Change]:
        """The last changes, newest first."""

    async def close(self) -> None:
        """Let go of connections and files."""
