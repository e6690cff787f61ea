"""The admin endpoints of a running service, for programs and commands."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import ValidationError

from control.changes import AnyChange, Stop
from control.reports import AuditAnswer, BundleReport, ChangeAnswer, StateAnswer
from control.state import Change, Frozen

POLL_S = 0.2
Answer = TypeVar("Answer", bound=Frozen)


class AdminError(Exception):
    """The service did not do it: says why, in one line."""


class RefusedError(AdminError):
    """A process refused a bundle of the version that was waited for."""

    def __init__(self, version: int, refusals: list[tuple[str, BundleReport]]) -> None:
        said = "; ".join(f"{report.bundle_id} by {process}: {report.error}" for process, report in refusals)
        super().__init__(f"version {version} is not served, a bundle was refused: {said}")
        self.refusals = refusals


class Admin:
    """The admin endpoints at `url`. Every method raises AdminError."""

    def __init__(self, url: str, key: str | None, who: str, timeout_s: float = 10.0) -> None:
        """`who`: for the audit log."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.url, self.who = url.rstrip("/"), who
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def state(self) -> StateAnswer:
        """What is wanted, what is agreed on, and what each process makes of it."""
        return self._ask(StateAnswer, "GET", "/v1/admin/state")

    def change(self, asked: AnyChange) -> int:
        """Make a change; the version that is wanted from now on."""
        body = asked.model_dump(mode="json")
        return self._ask(ChangeAnswer, "POST", "/v1/admin/changes", json=body).version

    def stop(self, experiment: str, arm: str | None, why: str, *, guardrail: bool = False) -> int:
        """Stop an experiment or one of its arms."""
        return self.change(Stop(experiment=experiment, arm=arm, why=why[:1000], who=self.who, guardrail=guardrail))

    def audit(self, limit: int = 100) -> tuple[Change, ...]:
        """The last changes, newest first."""
        return self._ask(AuditAnswer, "GET", "/v1/admin/audit", params={"limit": limit}).changes

    def wait(self, version: int, timeout_s: float, told: Callable[[StateAnswer], None] = lambda _: None) -> StateAnswer:
        """The state once every process serves `version` or a later one. RefusedError when a process refused a bundle of
        it, AdminError after `timeout_s`. `told` hears of every look."""
        end = time.monotonic() + timeout_s
        while True:
            state = self.state()
            told(state)
            if state.serves(version):
                return state
            if (refusals := state.refusals) and state.wanted is not None and state.wanted.version == version:
                raise RefusedError(version, refusals)
            if time.monotonic() > end:
                serving = ", ".join(f"{each.process} serves {each.serving}" for each in state.processes)
                raise AdminError(
                    f"version {version} is not served by all processes after {timeout_s:g} s: {serving or 'none there'}"
                )
            time.sleep(POLL_S)

    def _ask(self, answer: type[Answer], method: str, path: str, **options: Any) -> Answer:
        with self._reached():
            found = self._http.request(method, path, **options)
        if not found.is_success:
            raise AdminError(f"{self.url}{path}: {found.status_code}: {_problem(found)}")
        try:
            return answer.model_validate_json(found.content)
        except ValidationError as error:
            raise AdminError(f"{self.url}{path}: the answer is none of this version: {error}") from error

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise AdminError(f"{self.url} cannot be reached: {error or type(error).__name__}") from error


def _problem(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
