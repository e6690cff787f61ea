"""Against servers that close, refuse, stall or drip: what is sent again, what is not, and that the deadline holds."""

import asyncio
import time
from collections import Counter
from typing import Any

import httpx
import pytest

from client import (
    AsyncClient,
    ClientError,
    DeadlineError,
    EventIn,
    InvalidRequestError,
    NotAllowedError,
    OverloadedError,
    ProblemError,
    UnavailableError,
    UnreachableError,
    UnreadableAnswerError,
)
from client.course import MOST_ATTEMPTS
from tests.client.conftest import Open
from tests.client.servers import EVENTS_FINE, FINE, GONE, NOT_READY, RANKED, SHED, Act, problem, serving
from tests.service.conftest import free_port

EARNING = 10
"""Calls that earn a retry."""
CLICK = EventIn(user_id="anna", kind="click", ad_id=7)


def earn(client: Any) -> None:
    """Have a retry to spend."""
    for _ in range(EARNING):
        client.rank("anna")


def test_a_broken_connection_is_tried_again_with_the_same_id_and_what_is_left(client_at: Open) -> None:
    acts = {EARNING: Act(cut=0, held_s=0.3)}
    with serving(lambda i: acts.get(i, FINE)) as server, client_at(server.url) as client:
        earn(client)
        answer = client.rank("anna", deadline_ms=5000)
        assert answer.ads[0].ad_id == 7
        assert answer.exchange.attempts == 2
        assert answer.exchange.ms >= 300
        first, second = server.seen[-2:]
        assert first.headers["x-request-id"] == second.headers["x-request-id"] == answer.exchange.request_id
        assert first.body["deadline_ms"] <= 5000
        assert second.body["deadline_ms"] <= first.body["deadline_ms"] - 300


@pytest.mark.parametrize("cut", [0, 30, 250])
def test_wherever_the_connection_breaks(client_at: Open, cut: int) -> None:
    with serving(lambda i: Act(cut=cut)) as server, client_at(server.url) as client:
        with pytest.raises(UnreachableError) as caught:
            client.rank("anna")
        assert caught.value.maybe_taken
        assert caught.value.attempts == len(server.seen) == 1  # nothing is earned yet
        assert caught.value.request_id == server.seen[0].headers["x-request-id"]
        assert f"POST {server.url}/v1/rank: " in str(caught.value)


def test_nobody_there(client_at: Open) -> None:
    with client_at(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(UnreachableError) as caught:
            client.events([CLICK])
        assert not caught.value.maybe_taken
        assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("refusal", [SHED, Act(503, problem("not_ready"), {"Retry-After": "1"})], ids=["429", "503"])
def test_retry_after_is_waited_for(client_at: Open, refusal: Act) -> None:
    acts = {EARNING: refusal}
    with serving(lambda i: acts.get(i, FINE)) as server, client_at(server.url) as client:
        earn(client)
        assert client.rank("anna", deadline_ms=20_000).exchange.attempts == 2
        refused, taken = server.seen[-2:]
        assert taken.at - refused.at >= 1.0


def test_what_does_not_fit_in_the_deadline_is_said_at_once(client_at: Open) -> None:
    long = Act(429, problem("overloaded"), {"Retry-After": "60"})
    with serving(lambda i: FINE if i < EARNING else long) as server, client_at(server.url) as client:
        earn(client)
        with pytest.raises(OverloadedError) as caught:
            client.rank("anna", deadline_ms=30_000)
        assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (429, "overloaded", 60.0)
        assert len(server.seen) == EARNING + 1


@pytest.mark.parametrize("said", ["Wed, 21 Oct 2037 07:28:00 GMT", "-1", "soon"])
def test_a_time_to_try_again_that_is_no_number_of_seconds_is_never(client_at: Open, said: str) -> None:
    acts = {EARNING: Act(503, problem("not_ready"), {"Retry-After": said})}
    with serving(lambda i: acts.get(i, FINE)) as server, client_at(server.url) as client:
        earn(client)
        with pytest.raises(UnavailableError):
            client.rank("anna", deadline_ms=5000)


@pytest.mark.parametrize("slow", [Act(held_s=60), Act(drip_s=0.05)], ids=["silent", "dripping"])
def test_the_deadline_holds_however_slow_the_answer(client_at: Open, slow: Act) -> None:
    """The dripping server needs 40 s for its answer, and no single read of it takes longer than 0.05 s."""
    with serving(lambda i: FINE if i < EARNING else slow) as server, client_at(server.url) as client:
        earn(client)
        start = time.monotonic()
        with pytest.raises(DeadlineError) as caught:
            client.rank("anna", deadline_ms=1000)
        assert 1.0 <= time.monotonic() - start < 20
        assert len(server.seen) == EARNING + 1
        assert caught.value.maybe_taken
        assert isinstance(caught.value, TimeoutError)
        assert "the deadline of 1000 ms passed" in str(caught.value)


def test_a_connection_that_timed_out_is_not_used_again(client_at: Open) -> None:
    """Its late answer would be taken for that of the next call."""
    late = Act(body=problem("late"), held_s=1.5)
    with serving(lambda i: late if i == 0 else FINE) as server, client_at(server.url) as client:
        with pytest.raises(DeadlineError):
            client.rank("anna", deadline_ms=1000)
        for _ in range(5):
            assert client.rank("berta").ads[0].ad_id == 7
        assert {each.connection for each in server.seen[1:]} == {2}


@pytest.mark.parametrize("broken", [SHED, NOT_READY, GONE], ids=["sheds", "not ready", "closes"])
def test_a_service_that_fails_gets_at_most_a_tenth_more(client_at: Open, broken: Act) -> None:
    if broken is SHED:
        broken = Act(429, problem("overloaded"), {"Retry-After": "0"})
    with serving(lambda i: broken) as server, client_at(server.url, deadline_ms=20_000) as client:
        for _ in range(200):
            with pytest.raises(ClientError):
                client.rank("anna")
        assert 200 < len(server.seen) <= 220
        times = Counter(each.headers["x-request-id"] for each in server.seen)
        assert len(times) == 200
        assert max(times.values()) <= MOST_ATTEMPTS


def test_many_at_the_same_time_get_no_more_either() -> None:
    async def scenario(url: str) -> int:
        async with AsyncClient(url, connections=20) as client:
            found = await asyncio.gather(*(client.rank(i) for i in range(300)), return_exceptions=True)
        return sum(isinstance(each, OverloadedError) for each in found)

    shed = Act(429, problem("overloaded"), {"Retry-After": "0"})
    with serving(lambda i: shed) as server:
        assert asyncio.run(scenario(server.url)) == 300
        assert 300 < len(server.seen) <= 330


def test_events_are_sent_again_only_where_none_can_have_been_taken(client_at: Open) -> None:
    unknown = Act(503, problem("store_unavailable", "not known whether it took them"))
    for act, again in ((GONE, False), (unknown, False), (Act(502, b"bad gateway"), False), (NOT_READY, True)):
        acts = {EARNING: act}
        with serving(lambda i, acts=acts: acts.get(i, EVENTS_FINE)) as server, client_at(server.url) as client:  # type: ignore[misc]
            for _ in range(EARNING):
                client.events([CLICK])
            if again:
                assert client.events([CLICK]).accepted == 1
            else:
                with pytest.raises(ClientError) as caught:
                    client.events([CLICK])
                assert caught.value.maybe_taken
            assert len(server.seen) == EARNING + 1 + again


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, problem("malformed_json"), InvalidRequestError, "malformed_json"),
        (401, problem("unauthorized"), NotAllowedError, "unauthorized"),
        (403, problem("forbidden"), NotAllowedError, "forbidden"),
        (422, problem("invalid_request"), InvalidRequestError, "invalid_request"),
        (500, problem("internal"), ProblemError, "internal"),
        (502, b"<html>bad gateway</html>", ProblemError, ""),
        (301, b"", ProblemError, ""),
    ],
)
def test_other_refusals_are_said_and_not_tried_again(
    client_at: Open, status: int, body: bytes, kind: type[ProblemError], code: str
) -> None:
    act = Act(status, body, {"X-Request-Id": "theirs"})
    with serving(lambda i: FINE if i < EARNING else act) as server, client_at(server.url) as client:
        earn(client)
        with pytest.raises(kind) as caught:
            client.rank("anna")
        assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, code, "theirs")
        assert len(server.seen) == EARNING + 1


@pytest.mark.parametrize("body", [b"", b"[]", b'{"ads": []}', b"\xff\xfe"])
def test_a_success_that_is_none_of_this_api(client_at: Open, body: bytes) -> None:
    with (
        serving(lambda i: Act(body=body)) as server,
        client_at(server.url) as client,
        pytest.raises(UnreadableAnswerError, match="none of this API"),
    ):
        client.rank("anna")


def test_no_error_of_the_http_library_comes_out(client_at: Open) -> None:
    """Answers that break HTTP in every way, and a connection that cannot be made."""
    for answer in (
        b"",
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"\0" * 99,
    ):
        with serving(lambda i: GONE) as server, client_at(server.url) as client:
            server._answer = lambda connection, act, answer=answer: connection.sendall(answer)  # type: ignore[method-assign,misc]
            with pytest.raises(ClientError) as caught:
                client.rank("anna")
            assert not isinstance(caught.value, httpx.HTTPError)


def test_keys_of_a_newer_service_are_passed_over(client_at: Open) -> None:
    newer = Act(body=b'{"sugar": 1, ' + FINE.body[1:])
    with serving(lambda i: newer) as server, client_at(server.url) as client:
        assert client.rank("anna").total_ms == RANKED["total_ms"]
