"""Ending tasks that take a cancellation for their own."""

import asyncio

import pytest

from service import tasks
from service.tasks import ended


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.01)


def test_one_that_a_command_to_redis_keeps_from_ending() -> None:
    """As redis-py sends commands: the cancellation comes when the command is sent, in the same turn of the loop."""

    async def scenario() -> None:
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def follow() -> None:
            await asyncio.wait_for(sent, 60)
            await asyncio.Event().wait()

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        sent.set_result(None)
        await ended(following)
        assert following.cancelled()

    asyncio.run(scenario())


@pytest.mark.parametrize("ignored", [0, 1, 3])
def test_it_is_cancelled_until_it_ends(ignored: int) -> None:
    async def scenario() -> None:
        times = 0

        async def stubborn() -> None:
            nonlocal times
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    times += 1
                    if times > ignored:
                        raise

        one, other = asyncio.create_task(stubborn()), asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        await ended(one, None, other)
        assert (one.cancelled(), other.cancelled(), times) == (True, True, ignored + 1)

    asyncio.run(scenario())


def test_one_that_failed_is_logged_and_keeps_nobody_from_stopping(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async def failing() -> None:
            raise ZeroDivisionError("odd")

        failed, other = asyncio.create_task(failing()), asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        await ended(failed, other)
        assert other.cancelled()

    asyncio.run(scenario())
    (said,) = caplog.records
    assert "failing() done" in said.message
    assert said.exc_info is not None
    assert isinstance(said.exc_info[1], ZeroDivisionError)


def test_those_that_have_ended_and_none_at_all() -> None:
    async def scenario() -> None:
        done = asyncio.create_task(asyncio.sleep(0, "result"))
        await done
        await ended(done)
        await ended(None)
        assert done.result() == "result"

    asyncio.run(scenario())
