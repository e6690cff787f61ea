"""A StateStore in memory: what changes do to it can be looked at, and another change can come first."""

from control.reports import ProcessReport
from control.state import Change, Desired
from service.errors import ConflictError
from service.state_stores import Known


class MemoryState:
    def __init__(self, first: Desired | None) -> None:
        self.states = {} if first is None else {first.version: first}
        self.agreed = 0 if first is None else first.version
        self.changes: list[Change] = []
        self.reports: dict[str, ProcessReport] = {}
        self.intruders: list[Desired] = []

    async def look(self) -> Known:
        return Known(self.states.get(max(self.states, default=0)), self.states.get(self.agreed))

    async def change(self, state: Desired, change: Change) -> None:
        if self.intruders:
            intruder = self.intruders.pop()
            self.states[intruder.version] = intruder
        if (found := max(self.states, default=0)) != change.before:
            raise ConflictError(change.before, found)
        self.states[state.version] = state
        self.changes.insert(0, change)

    async def agree(self, version: int) -> bool:
        self.agreed = version
        return True

    async def version(self, version: int) -> Desired | None:
        return self.states.get(version)

    async def report(self, report: ProcessReport) -> None:
        self.reports[report.process] = report

    async def leave(self, process: str) -> None:
        self.reports.pop(process, None)

    async def processes(self) -> list[ProcessReport]:
        return [self.reports[name] for name in sorted(self.reports)]

    async def audit(self, limit: int) -> list[Change]:
        return self.changes[:limit]

    async def close(self) -> None: ...
