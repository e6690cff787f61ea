"""What processes say of themselves, and what the gate said of bundles: shown by the admin endpoints."""

from typing import Literal

from pydantic import Field

from control.state import Change, Desired, Frozen


class Check(Frozen):
    """One check of the gate."""

    name: str
    passed: bool
    found: float | str | None = None
    limit: float | str | None = None
    note: str = ""


class BundleReport(Frozen):
    """What became of one bundle in one process."""

    bundle_id: str
    status: Literal["preparing", "ready", "refused"]
    checks: tuple[Check, ...] = ()
    """In the order in which they were made; the last one failed where it was refused."""
    error: str | None = None
    """Why it was refused, in one line."""


class ProcessReport(Frozen):
    """What one process says of itself, every time it looks at the state."""

    process: str
    """Host, pid and a few drawn characters."""
    started_at: float
    """Unix seconds."""
    at: float
    """Of this report. A process that says nothing for a while is dead, and nobody waits for it."""
    serving: int
    """The version that its requests see; 0: none yet."""
    prepared: int
    """The newest version all of whose bundles it holds ready."""
    bundles: tuple[BundleReport, ...] = ()


class StateAnswer(Frozen):
    """What GET /v1/admin/state says."""

    request_id: str
    wanted: Desired | None
    """The newest state; None: there is none yet."""
    agreed: Desired | None
    """The one that is served; None: no version was agreed on yet."""
    processes: tuple[ProcessReport, ...] = Field(default=())

    @property
    def refusals(self) -> list[tuple[str, BundleReport]]:
        """Process and report of each bundle of the wanted version that was refused."""
        needed = self.wanted.bundles if self.wanted is not None else frozenset()
        return [
            (process.process, report)
            for process in self.processes
            for report in process.bundles
            if report.status == "refused" and report.bundle_id in needed
        ]

    def serves(self, version: int) -> bool:
        """Whether every process serves this version or a later one."""
        agreed = self.agreed is not None and self.agreed.version >= version
        return agreed and all(process.serving >= version for process in self.processes)


class ChangeAnswer(Frozen):
    """What POST /v1/admin/changes says."""

    request_id: str
    version: int
    """Of the state that is wanted from now on. It is served once every process has prepared it."""


class AuditAnswer(Frozen):
    """What GET /v1/admin/audit says."""

    request_id: str
    changes: tuple[Change, ...]
    """Newest first."""
