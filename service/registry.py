"""Holds the one live plan. Publishing a new one is the exchange of a single reference."""

from service.errors import NotReadyError
from service.loaded import LoadedBundle
from service.plan import Plan


class Registry:
    """The live plan. A request takes the reference once and keeps it, so it never sees two versions."""

    def __init__(self) -> None:
        self._plan: Plan | None = None

    @property
    def is_ready(self) -> bool:
        """Whether a plan is live."""
        return self._plan is not None

    @property
    def plan(self) -> Plan:
        """The live plan. NotReadyError before the first one is published."""
        if self._plan is None:
            raise NotReadyError("no bundle is loaded yet")
        return self._plan

    @property
    def live(self) -> LoadedBundle:
        """The control's bundle. NotReadyError before the first plan is published."""
        return self.plan.control

    def publish(self, plan: Plan) -> None:
        """Make `plan` the live one; requests under way keep the one they have."""
        self._plan = plan
