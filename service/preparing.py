"""From the id of a bundle to a bundle that is ready to serve: the protocol, and how it is refused."""

from typing import Protocol

from control.reports import BundleReport
from service.errors import ServiceError
from service.loaded import LoadedBundle


class RefusedError(ServiceError):
    """A bundle must not serve here. The report says which check failed, with numbers."""

    def __init__(self, report: BundleReport) -> None:
        super().__init__(f"bundle {report.bundle_id} is refused: {report.error}")
        self.report = report


class Preparer(Protocol):
    """Prepares bundles beside the traffic."""

    async def prepare(self, bundle_id: str, live: LoadedBundle | None) -> LoadedBundle:
        """The bundle, proved and warm. RefusedError for one that must not serve; any other error is of the moment, and
        it is tried again. `live`: what it is held against."""
