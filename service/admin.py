"""Administration: what is to be served is looked at and changed, and every change is written down."""

import asyncio
import logging
import time
from dataclasses import dataclass

from control.changes import AnyChange, ChangeError, Rollback, audited, changed
from control.reports import AuditAnswer, ChangeAnswer, StateAnswer
from control.state import Desired
from service.errors import ConflictError, InvalidRequestError, NotReadyError
from service.log_lines import Said
from service.state_stores import Known, StateStore

log = logging.getLogger("adrank.admin")
ATTEMPTS = 5
"""Times that a change which names no version is tried again when another comes first."""
MOST_AUDIT = 1000
"""Lines of the audit log in one answer."""


@dataclass(frozen=True, slots=True)
class AdminDesk:
    """Takes changes of the desired state. Every method raises StoreError when the state's store fails."""

    store: StateStore

    async def state(self, request_id: str) -> StateAnswer:
        """The wanted and the agreed state, and what each process makes of them."""
        known, processes = await asyncio.gather(self.store.look(), self.store.processes())
        return StateAnswer(request_id=request_id, wanted=known.wanted, agreed=known.agreed, processes=tuple(processes))

    async def change(self, asked: AnyChange, request_id: str) -> ChangeAnswer:
        """Make the change the wanted state. Processes prepare it and then serve it, all together.

        InvalidRequestError for one that is impossible, ConflictError when `asked.expected` is not the version there is,
        NotReadyError before the first state.
        """
        for attempt in range(ATTEMPTS):
            known = await self.store.look()
            if known.wanted is None:
                raise NotReadyError("there is no state yet: the service has not started")
            before = known.wanted.version
            if asked.expected is not None and asked.expected != before:
                raise ConflictError(asked.expected, before)
            now = time.time()
            earlier = await self._earlier(asked, known) if isinstance(asked, Rollback) else None
            try:
                state = changed(asked, known.wanted, earlier, now)
            except ChangeError as error:
                raise InvalidRequestError(str(error)) from error
            try:
                await self.store.change(state, audited(asked, before, now))
            except ConflictError:
                if asked.expected is not None or attempt == ATTEMPTS - 1:
                    raise
                continue
            said = {"request_id": request_id, "action": asked.action, "who": asked.who, "why": asked.why}
            log.warning(Said("the state is changed", **said, version=state.version, before=before))
            return ChangeAnswer(request_id=request_id, version=state.version)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def audit(self, limit: int, request_id: str) -> AuditAnswer:
        """The last changes, newest first."""
        if not 1 <= limit <= MOST_AUDIT:
            raise InvalidRequestError(f"limit is {limit}, from 1 to {MOST_AUDIT}", "limit", f"from 1 to {MOST_AUDIT}")
        return AuditAnswer(request_id=request_id, changes=tuple(await self.store.audit(limit)))

    async def _earlier(self, asked: Rollback, known: Known) -> Desired | None:
        assert known.wanted is not None
        if asked.to is not None:
            return await self.store.version(asked.to)
        if known.agreed is not None and known.agreed.version != known.wanted.version:
            return known.agreed
        return await self.store.version(known.wanted.version - 1)
