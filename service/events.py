"""Clicks and other events: appended to the users' records, so that the next request sees them, and logged in the same
step for `adrank outcomes`."""

import logging
import time
from dataclasses import dataclass

from bundle.record import Event, pack_events
from bundle.schema import UNKNOWN
from service.checks import check_events, readers
from service.errors import StoreError
from service.log_lines import Said
from service.metrics import Metrics
from service.registry import Registry
from service.schemas import EventsRequest, EventsResponse
from service.settings import Settings
from service.user_features import UserReader

log = logging.getLogger("adrank.events")


@dataclass(frozen=True, slots=True)
class EventLog:
    """Takes events for the histories of all live bundles."""

    registry: Registry
    users: UserReader
    metrics: Metrics
    settings: Settings

    async def append(self, request: EventsRequest, request_id: str) -> EventsResponse:
        """Store all events or none.

        InvalidRequestError for a kind or shape that no live bundle knows, StoreError for a store that fails.
        """
        bundles = self.registry.plan.catalogues
        check_events(request, bundles, self.settings)
        now = int(time.time() * 1000)
        by_user: dict[str, list[Event]] = {}
        ignored = unknown_ads = 0
        for event in request.events:
            if not readers(bundles, event.kind):
                ignored += 1
                continue
            if event.ad_id is not None and all(each.ads.index.id_of(event.ad_id) == UNKNOWN for each in bundles):
                unknown_ads += 1
            values = tuple(event.values) if event.values is not None else (event.ad_id,)
            at = now if event.time_ms is None else event.time_ms
            by_user.setdefault(str(event.user_id), []).append(Event(event.kind, at, values))
        line = request.model_dump_json(exclude_unset=True).encode() if self.settings.log_entries else None
        logged = False
        if by_user or line is not None:
            try:
                done = await self.users.append(
                    {user_id: pack_events(events) for user_id, events in by_user.items()}, line
                )
            except StoreError as error:
                if str(error) == "timeout":
                    raise StoreError(
                        "the feature store did not answer in time; it is not known whether it took the events"
                    ) from error
                raise StoreError(f"the feature store did not take the events: {error}") from error
            if done.anew:
                log.warning(
                    Said("unreadable records were started anew by events", request_id=request_id, records=done.anew)
                )
                self.metrics.started_anew(done.anew)
            logged = done.logged
            self.metrics.log_trimmed("events", done.trimmed)
        accepted = len(request.events) - ignored
        self.metrics.events(accepted, ignored)
        return {
            "request_id": request_id,
            "accepted": accepted,
            "ignored": ignored,
            "unknown_ads": unknown_ads,
            "logged": len(request.events) if logged else 0,
        }
