"""Follows the desired state: prepares what is wanted, agrees with the other processes, serves what was agreed on.

A turn, several times a second: look at the store; have what is missing prepared, beside the traffic; report; agree when
everybody is ready; publish the agreed version. A request keeps the plan that it began with, so it never sees two.
"""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from control.reports import BundleReport, ProcessReport
from control.state import Change, Desired, Overrides
from service.ad_flags import AdFlags
from service.background import Background
from service.errors import ConflictError, StoreError
from service.loaded import LoadedBundle
from service.metrics import Metrics
from service.plan import Plan
from service.preparation import Preparation
from service.preparing import Preparer, RefusedError
from service.registry import Registry
from service.shelf import Shelf
from service.state_stores import Known, StateStore
from service.tasks import ended

log = logging.getLogger("adrank.state")
HEARTBEATS = 5
"""Reports in the time for which one counts, though there is nothing new to say."""
PATIENCE = 2
"""A start goes on without an agreed version after so many times that a report counts for, unless something loads."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a process looks, and for how long what it says counts."""

    poll_s: float
    ttl_s: float


class Follower:
    """One process's part in serving the desired state. For one event loop."""

    def __init__(
        self,
        store: StateStore,
        preparer: Preparer,
        registry: Registry,
        shelf: Shelf,
        flags: AdFlags,
        background: Background,
        metrics: Metrics,
        pace: Pace,
    ) -> None:
        self.store = store
        self.process = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        self._registry, self._shelf, self._flags = registry, shelf, flags
        self._background, self._metrics, self._pace = background, metrics, pace
        self._awake = asyncio.Event()
        self._preparation = Preparation(preparer, registry, shelf, flags, metrics, self._awake.set)
        self._started_at = time.time()
        self._known = Known(None, None)
        self._looked_at = time.monotonic()
        self._plan: Plan | None = None
        """The last one that was made: of the live version, or of one that is ready and not agreed on yet."""
        self._first: str | None = None
        """The bundle of the setting, if it was loaded when the process started."""
        self._serving = self._prepared = 0
        self._impossible: tuple[Desired, BundleReport] | None = None
        """A version whose bundles are there, but which they cannot serve."""
        self._said: tuple[ProcessReport, float] | None = None
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    async def start(self, load: Callable[[], Awaitable[LoadedBundle]], given: LoadedBundle | None = None) -> None:
        """Serve the agreed version, or nothing as long as it is refused here. The bundle of the setting is loaded only
        where there is no state yet, which it begins, or where the state cannot be read: until it can, it is served.
        `given`: that bundle, where it is loaded already."""
        known = None
        with suppress(StoreError):  # the first turn will say it
            known = await self.store.look()
        if given is None and (known is None or known.wanted is None):
            given = await load()
        if given is not None:
            self._shelf.add(given)
            self._first = given.id
            await asyncio.to_thread(self._flags.of, given.bundle)
            _say_what_prevails(known, given.id)
        given = None
        await self._look_until_settled()
        if self._failed and not self._registry.is_ready:
            first = self._shelf.held.get(self._first or "") or await load()
            log.warning("the state cannot be read: until it can, bundle %s is served", first.id)
            self._shelf.add(first)
            self._publish(Plan(Desired(version=0, control=Overrides(bundle=first.id)), {first.id: first}))
        if not self._registry.is_ready:
            log.error("nothing is served: %s", "; ".join(str(each.error) for each in self.reports if each.error))
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Follow no longer, and have nobody wait for this process."""
        await ended(self._task)
        await self._preparation.stop()
        with suppress(StoreError):
            await self.store.leave(self.process)

    @property
    def known(self) -> Known:
        """What the store said when it was last looked at."""
        return self._known

    @property
    def serving(self) -> int:
        """The version that requests see; 0: none that was agreed on."""
        return self._serving

    @property
    def age_s(self) -> float:
        """Seconds since the store was last looked at."""
        return time.monotonic() - self._looked_at

    @property
    def held(self) -> dict[str, LoadedBundle]:
        """The bundles that are loaded, by id."""
        return self._shelf.held

    @property
    def reports(self) -> tuple[BundleReport, ...]:
        """What became of each bundle here."""
        found = {each.bundle_id: each for each in self._preparation.reports}
        if self._impossible is not None and self._impossible[0] in (self._known.wanted, self._known.agreed):
            found[self._impossible[1].bundle_id] = self._impossible[1]
        return tuple(found[name] for name in sorted(found))

    async def _look_until_settled(self) -> None:
        end = time.monotonic() + PATIENCE * self._pace.ttl_s
        await self._look_once()
        while not (self._registry.is_ready or self._failed or self._hopeless) and time.monotonic() < end:
            await self._pause()
            await self._look_once()
            if not self._preparation.is_done(self._known):
                end = time.monotonic() + PATIENCE * self._pace.ttl_s

    @property
    def _hopeless(self) -> bool:
        """Whether what is missing was refused, or cannot be had now."""
        state = self._known.agreed or self._known.wanted
        if state is None or not self._preparation.is_done(self._known):
            return False
        return self._impossible is not None or not state.bundles <= self._shelf.held.keys()

    async def _follow(self) -> None:
        while True:
            await self._pause()
            await self._look_once()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.poll_s):
                await self._awake.wait()
        self._awake.clear()

    async def _look_once(self) -> None:
        """One turn, whatever fails in it."""
        try:
            await self._turn()
        except StoreError as error:
            if not self._failed:
                log.warning("the state cannot be followed, what is served stays: %s", error)
            self._failed = True
        except Exception:  # or nobody would follow any more
            log.exception("following the state: unexpected error")
        else:
            if self._failed:
                log.warning("the state is followed again")
            self._failed, self._looked_at = False, time.monotonic()
        self._metrics.state_age(self.age_s)
        self._tidy()

    async def _turn(self) -> None:
        known = await self.store.look()
        if known.wanted is None:
            known = await self._begin()
        self._known = known
        wanted = known.wanted
        assert wanted is not None
        self._preparation.look_after(known)
        if (ready := self._plan_of(wanted)) is not None:
            self._prepared = wanted.version
        await self._report(self._serving)
        if ready is not None and wanted != known.agreed and await self.store.agree(wanted.version):
            self._known = known = Known(wanted, wanted)
        await self._serve(known.agreed)
        self._metrics.versions(wanted.version, 0 if known.agreed is None else known.agreed.version, self._serving)

    async def _begin(self) -> Known:
        """The first state. A store that lost it gets back what is served."""
        if self._serving:
            state, why = self._registry.plan.desired, "the store had lost its state"
        elif self._first is not None:
            state, why = Desired(version=1, control=Overrides(bundle=self._first)), "the setting `bundle`"
        else:
            raise StoreError("the state was lost while this process started")
        change = Change(at=time.time(), who=self.process, why=why, action="first", before=0, after=state.version)
        with suppress(ConflictError):  # another process was quicker
            await self.store.change(state, change)
            log.info("the state begins with version %d: %s", state.version, why)
        return await self.store.look()

    def _plan_of(self, desired: Desired) -> Plan | None:
        """None while it is not ready."""
        if self._plan is not None and self._plan.desired == desired:
            return self._plan
        held = self._shelf.held
        if not desired.bundles <= held.keys() or (self._impossible is not None and self._impossible[0] == desired):
            return None
        try:
            self._plan = Plan(desired, {name: held[name] for name in desired.bundles})
        except RefusedError as error:
            log.error("version %d cannot be served: %s", desired.version, error)
            self._impossible = desired, error.report
            return None
        return self._plan

    async def _serve(self, agreed: Desired | None) -> None:
        if agreed is None or (self._serving and agreed == self._registry.plan.desired):
            return
        if (plan := self._plan_of(agreed)) is None:
            return
        if not self._serving:
            # Nobody waited for us until now. From this report on they do, so what is agreed on now holds.
            await self._report(agreed.version)
            if (await self.store.look()).agreed != agreed:
                self._awake.set()
                return
        self._publish(plan)
        await self._report(self._serving)

    def _publish(self, plan: Plan) -> None:
        before = self._serving
        self._registry.publish(plan)
        self._serving = plan.version
        if plan.version:
            log.info("version %d is served, bundle %s; before: %d", plan.version, plan.control.id, before)
            self._metrics.swapped()

    async def _report(self, serving: int) -> None:
        """Say what is new; from time to time, that nothing is."""
        now = time.monotonic()
        report = ProcessReport(
            process=self.process,
            started_at=self._started_at,
            at=time.time(),
            serving=serving,
            prepared=self._prepared,
            bundles=self.reports,
        )
        if self._said is not None:
            last, said_at = self._said
            if last == report.model_copy(update={"at": last.at}) and now - said_at < self._pace.ttl_s / HEARTBEATS:
                return
        await self.store.report(report)
        self._said = report, now

    def _tidy(self) -> None:
        """Let go of bundles that nobody needs; they are freed once no request holds them."""
        if not self._registry.is_ready:
            return
        live = self._registry.plan
        needed = set(live.desired.bundles)
        for desired in (self._known.agreed, self._known.wanted):
            needed |= set() if desired is None else desired.bundles
        self._shelf.trim(sorted(needed))
        self._preparation.forget_troubles(needed)
        if self._plan is not None and self._plan is not live and not self._plan.desired.bundles <= needed:
            self._plan = None
        del live
        unused = self._shelf.take_unused()
        self._flags.keep(self._registry.live.bundle, [*self._shelf.bundles, *self._preparation.arriving])
        if unused:
            self._background.let_go(unused)
        self._metrics.bundles_held(len(self._shelf.held))


def _say_what_prevails(known: Known | None, first: str) -> None:
    agreed = None if known is None else known.agreed
    if agreed is not None and agreed.control.bundle != first:
        log.warning(
            "version %d of the state serves bundle %s, the setting `bundle` is %s: the state prevails",
            agreed.version,
            agreed.control.bundle,
            first,
        )
