"""Administration without HTTP: what is changed, what is refused, and who came first."""

import asyncio
from typing import Any

import pytest

from control.changes import Rollback, Serve
from control.state import Desired, Overrides
from service.admin import AdminDesk
from service.errors import ConflictError, InvalidRequestError, NotReadyError
from tests.service.memory_state import MemoryState

SAID: dict[str, Any] = {"who": "anna", "why": "to see"}


def first(version: int = 1, bundle: str = "old") -> Desired:
    return Desired(version=version, control=Overrides(bundle=bundle))


def served(bundle: str, **said: Any) -> Serve:
    return Serve(control=Overrides(bundle=bundle), **{**SAID, **said})


def test_a_change_is_the_next_version_and_in_the_audit_log() -> None:
    store = MemoryState(first())
    answer = asyncio.run(AdminDesk(store).change(served("new"), "r"))
    assert (answer.version, store.states[2].control.bundle) == (2, "new")
    (line,) = asyncio.run(AdminDesk(store).audit(10, "r")).changes
    assert (line.who, line.why, line.action, line.before, line.after) == ("anna", "to see", "serve", 1, 2)


def test_the_version_that_is_to_be_replaced_must_be_there() -> None:
    with pytest.raises(ConflictError, match="version 7 was to be replaced, the state is at 1"):
        asyncio.run(AdminDesk(MemoryState(first())).change(served("new", expected=7), "r"))


def test_another_change_that_comes_first_is_built_upon() -> None:
    store = MemoryState(first())
    store.intruders = [first(2, "other")]
    assert asyncio.run(AdminDesk(store).change(served("new"), "r")).version == 3
    assert store.changes[0].before == 2


def test_another_change_that_comes_first_is_not_overruled_where_a_version_was_named() -> None:
    store = MemoryState(first())
    store.intruders = [first(2, "other")]
    with pytest.raises(ConflictError):
        asyncio.run(AdminDesk(store).change(served("new", expected=1), "r"))
    assert store.states[2].control.bundle == "other"


def test_nothing_is_changed_before_the_first_state() -> None:
    with pytest.raises(NotReadyError):
        asyncio.run(AdminDesk(MemoryState(None)).change(served("new"), "r"))


def test_an_impossible_change_is_the_callers_error() -> None:
    with pytest.raises(InvalidRequestError, match="version 9 is not kept"):
        asyncio.run(AdminDesk(MemoryState(first())).change(Rollback(to=9, **SAID), "r"))


def test_back_to_the_version_before() -> None:
    store = MemoryState(first())
    desk = AdminDesk(store)
    asyncio.run(desk.change(served("new"), "r"))
    store.agreed = 2
    asyncio.run(desk.change(Rollback(**SAID), "r"))
    assert store.states[3].control.bundle == "old"


def test_back_from_a_version_that_was_never_served_is_to_the_one_that_is() -> None:
    store = MemoryState(first())
    desk = AdminDesk(store)
    asyncio.run(desk.change(served("refused"), "r"))
    asyncio.run(desk.change(served("refused too"[:7]), "r"))
    assert store.agreed == 1
    asyncio.run(desk.change(Rollback(**SAID), "r"))
    assert store.states[4].control.bundle == "old"


@pytest.mark.parametrize("limit", [0, 1001])
def test_the_audit_log_is_read_in_bounds(limit: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"limit is {limit}, from 1 to 1000"):
        asyncio.run(AdminDesk(MemoryState(first())).audit(limit, "r"))
