"""The thread in which bundles are loaded: behind all others, and considerate of the interpreter's lock."""

import asyncio
import os
import sys
import threading
import weakref

import pytest

from service.background import BEHIND, SWITCH_S, Background


class Thing:
    """Something that can be referred to weakly."""


def test_it_steps_back_behind_requests() -> None:
    background = Background()
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), sys.getswitchinterval()

    def look() -> tuple[int, float, str]:
        priority = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return priority, sys.getswitchinterval(), threading.current_thread().name

    priority, interval, name = asyncio.run(background.run(look))
    assert priority == BEHIND
    assert interval == pytest.approx(SWITCH_S, abs=2e-6)
    assert name.startswith("background")
    assert (os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), sys.getswitchinterval()) == before
    background.close()


def test_errors_are_the_callers_and_the_interval_is_as_before() -> None:
    background = Background()
    before = sys.getswitchinterval()

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(background.run(fail))
    assert sys.getswitchinterval() == before
    background.close()


def test_what_is_let_go_of_is_freed_in_the_thread() -> None:
    background = Background()
    freed: list[str] = []
    thing = Thing()
    weakref.finalize(thing, lambda: freed.append(threading.current_thread().name))
    held: list[object] = [thing]
    del thing
    background.let_go(held)
    asyncio.run(background.run(lambda: None))
    assert len(freed) == 1
    assert freed[0].startswith("background")
    background.close()
