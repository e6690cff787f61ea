import asyncio
import socket
import threading
from collections.abc import Callable
from functools import partial

import pytest

from service.app import create_app
from service.runner import InThreads, InTurns, Runner
from service.settings import Settings
from tests.patience import PATIENCE_S
from tests.service.conftest import client_of


@pytest.mark.parametrize("make", [InTurns, lambda: InThreads(2)])
def test_work_answers_raises_and_lets_the_next_one_run(make: Callable[[], Runner]) -> None:
    async def scenario(runner: Runner) -> None:
        def fail() -> None:
            raise ValueError("no")

        answers = await asyncio.gather(
            *(runner.run(work) for work in (lambda: 1, fail, lambda: 2)), return_exceptions=True
        )
        assert answers[0] == 1
        assert answers[2] == 2
        assert isinstance(answers[1], ValueError)
        assert await runner.run(lambda: 3) == 3
        runner.close()

    asyncio.run(scenario(make()))


def test_turns_are_in_order_of_arrival() -> None:
    async def scenario() -> None:
        runner, order = InTurns(), list[int]()
        await asyncio.gather(*(runner.run(partial(order.append, i)) for i in range(20)))
        assert order == list(range(20))

    asyncio.run(scenario())


def test_between_two_turns_the_loop_looks_at_its_sockets() -> None:
    """What the first piece of work sends has been read before the second one runs."""

    async def scenario() -> None:
        here, there = socket.socketpair()
        here.setblocking(False)
        there.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=there)
        happened: list[str] = []

        async def listen() -> None:
            happened.append((await reader.readexactly(4)).decode())

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        runner = InTurns()

        def first() -> None:
            here.send(b"said")
            happened.append("first")

        await asyncio.gather(runner.run(first), runner.run(lambda: happened.append("second")))
        await listening
        assert happened == ["first", "said", "second"]
        writer.close()
        here.close()

    asyncio.run(scenario())


def test_who_gives_up_waiting_never_runs_and_holds_nobody_up() -> None:
    async def scenario() -> None:
        runner, ran = InTurns(), list[int]()
        tasks = [asyncio.create_task(runner.run(partial(ran.append, i))) for i in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[1].cancelled()
        assert ran == [0, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("make", [InTurns, lambda: InThreads(1)])
def test_spare_work_runs_only_when_nobody_is_there(make: Callable[[], Runner]) -> None:
    async def scenario(runner: Runner) -> None:
        ran: list[str] = []
        assert await runner.spare(lambda: ran.append("spare"))
        requests = [asyncio.create_task(runner.run(partial(ran.append, f"request {i}"))) for i in range(2)]
        await asyncio.sleep(0)
        assert not await runner.spare(lambda: ran.append("not now"))
        await asyncio.gather(*requests)
        while not await runner.spare(lambda: ran.append("spare")):  # a turn ends a little after its answer
            await asyncio.sleep(0)
        assert ran == ["spare", "request 0", "request 1", "spare"]
        assert (runner.turns, runner.waiting) == (2, 0), "spare work is no turn"

        def fail() -> None:
            raise ZeroDivisionError

        async def fails() -> None:
            while not await runner.spare(fail):
                await asyncio.sleep(0)

        with pytest.raises(ZeroDivisionError):
            await fails()
        assert await runner.run(lambda: 3) == 3
        runner.close()

    asyncio.run(scenario(make()))


def test_threads_run_at_the_same_time() -> None:
    async def scenario() -> None:
        runner, both = InThreads(2), threading.Barrier(2)
        places = await asyncio.gather(*(runner.run(lambda: both.wait(PATIENCE_S)) for _ in range(2)))
        assert sorted(places) == [0, 1], "each waited for the other"
        runner.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("threads", [0, 2])
def test_a_busy_service_says_that_it_lives(settings: Settings, threads: int) -> None:
    body = {"user_id": "anna", "ads": list(range(1000, 1300)), "context": {"scene": "feed"}}

    async def scenario() -> None:
        app = create_app(settings.model_copy(update={"cascade_threads": threads}))
        async with client_of(app) as client:
            done: list[str] = []

            async def ask(name: str) -> None:
                answer = await (client.get("/healthz") if name == "health" else client.post("/v1/score", json=body))
                assert answer.status_code == 200
                done.append(name)

            await asyncio.gather(*(ask("score") for _ in range(30)), ask("health"))
            assert "health" in done[:15]

    asyncio.run(scenario())


def test_a_burst_is_refused_above_the_limit_and_answered_below(settings: Settings) -> None:
    body = {"user_id": "anna", "ads": [1000], "user": {"profile": {}, "history": {}}}

    async def scenario() -> None:
        async with client_of(create_app(settings.model_copy(update={"max_in_flight": 5}))) as client:
            answers = await asyncio.gather(*(client.post("/v1/score", json=body) for _ in range(30)))
            found = [answer.status_code for answer in answers]
            assert set(found) == {200, 429}
            assert found.count(200) >= 5
            assert (await client.post("/v1/score", json=body)).status_code == 200

    asyncio.run(scenario())
