"""The thread in which bundles are loaded: behind all others, and considerate of the interpreter's lock."""

import asyncio
import os
import sys
import threading
import time
import weakref

import pytest

from service.background import BEHIND, PATIENCE_S, SWITCH_S, Background
from service.traffic import Traffic


class Thing:
    """Something that can be referred to weakly."""


def test_it_steps_back_behind_requests() -> None:
    background = Background(Traffic())
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
    background = Background(Traffic())
    before = sys.getswitchinterval()

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(background.run(fail))
    assert sys.getswitchinterval() == before
    background.close()


def test_what_is_let_go_of_is_freed_in_the_thread() -> None:
    background = Background(Traffic())
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


def test_it_gives_way_until_no_request_is_in_flight() -> None:
    traffic = Traffic()
    background = Background(traffic)
    traffic.in_flight = 1
    order: list[str] = []

    def step() -> None:
        order.append("begun")
        background.give_way()
        order.append("step")

    async def scenario() -> None:
        working = asyncio.create_task(background.run(step))
        while "begun" not in order:
            await asyncio.sleep(0)
        order.append("answered")
        traffic.in_flight = 0
        await working

    asyncio.run(scenario())
    assert order == ["begun", "answered", "step"]
    background.close()


def test_in_a_process_that_is_never_idle_it_gives_way_for_a_while() -> None:
    traffic = Traffic()
    background = Background(traffic)
    traffic.in_flight = 1
    begun = time.monotonic()
    asyncio.run(background.run(background.give_way))
    assert time.monotonic() - begun >= PATIENCE_S
    background.close()
