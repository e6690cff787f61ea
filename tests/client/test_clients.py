"""Both clients against the real service."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from client import AsyncClient, Client, DeadlineError, EventIn, Filter, Given, InvalidRequestError, UnreachableError
from loadtest.served import Served
from tests.client.conftest import Open
from tests.client.servers import FINE, Act, certificate, serving
from tests.service.conftest import free_port


def test_a_ranking(service: Served, client_at: Open) -> None:
    with client_at(service.url) as client:
        answer = client.rank(
            "anna",
            context={"scene": "feed"},
            k=3,
            filters={"category": Filter(none_of=["cars"])},
            user=Given(profile={"city": "Oslo"}),
            deadline_ms=20_000,
        )
    assert [ad.position for ad in answer.ads] == [1, 2, 3]
    assert answer.bundle_id == "world"
    assert answer.scored_by == "finerank"
    assert [stage.name for stage in answer.stages] == ["retrieval", "qscore", "prerank", "finerank", "auction"]
    assert answer.stages[0].seen >= answer.stages[0].kept >= 3
    assert answer.request_id == answer.exchange.request_id
    assert answer.exchange.attempts == 1
    assert answer.exchange.timings.keys() >= {"queue", "finerank", "total"}
    assert answer.exchange.ms >= answer.exchange.timings["total"]


def test_own_candidates_and_their_reasons(service: Served, client_at: Open) -> None:
    with client_at(service.url) as client:
        bad = client.rank("anna", candidates=[999_999, 1000], filters={"category": Filter(any_of=["nothing"])})
    assert bad.unknown_candidates == (999_999,)
    assert [each.ad_id for each in bad.excluded_candidates] == [1000]
    assert bad.excluded_candidates[0].reason == "filter: category"


def test_scores_are_those_of_the_ranking(service: Served, client_at: Open) -> None:
    with client_at(service.url) as client:
        ranked = client.rank("berta", k=5)
        scored = client.score("berta", [ad.ad_id for ad in ranked.ads] + ["nobody's"])
    assert scored.pctr[:5] == tuple(ad.pctr for ad in ranked.ads)
    assert scored.unknown_ads == ("nobody's",)


def test_events_are_seen_by_the_next_request(service: Served, client_at: Open) -> None:
    user = f"new-{client_at.__name__}"
    with client_at(service.url) as client:
        before = client.rank(user, k=1)
        ad = before.ads[0].ad_id
        said = client.events(
            [
                EventIn(user_id=user, kind="click", ad_id=ad, request_id=before.request_id),
                EventIn(user_id=user, kind="click", ad_id="nobody's"),
                EventIn(user_id=user, kind="impression", ad_id=ad),
            ]
        )
        assert (said.accepted, said.ignored, said.unknown_ads) == (2, 1, 1)
        assert before.user == "unknown"
        assert client.rank(user, k=1).user == "known"


def test_the_bundles(service: Served, client_at: Open) -> None:
    with client_at(service.url) as client:
        answer = client.bundles()
    assert answer.bundles[0].bundle_id == "world"
    assert answer.bundles[0].serves == ("control",)
    assert answer.bundles[0].ads == 300
    assert answer.bundles[0].golden.requests == 2
    assert answer.state.serving == answer.state.agreed == answer.state.processes[0].serving == 1
    assert answer.shadow is None


def test_what_the_service_refuses_is_named(service: Served, client_at: Open) -> None:
    with client_at(service.url) as client, pytest.raises(InvalidRequestError) as caught:
        client.rank("anna", k=10_000)
    error = caught.value
    assert (error.status, error.code, error.field, error.attempts) == (422, "invalid_request", "k", 1)
    assert error.bound is not None
    assert error.bound.startswith("at most ")
    assert not error.maybe_taken
    assert f"POST {service.url}/v1/rank: 422 invalid_request: k is 10000, at most" in str(error)
    assert error.request_id in str(error)


def test_the_key_and_further_headers_go_with_every_call(client_at: Open) -> None:
    with serving(lambda i: FINE) as server, client_at(server.url, key="open", headers={"X-More": "1"}) as client:
        client.rank("anna")
    seen = server.seen[0]
    assert seen.headers["authorization"] == "Bearer open"
    assert seen.headers["x-more"] == "1"
    assert seen.headers["content-type"] == "application/json"


def test_connections_are_kept(client_at: Open) -> None:
    with serving(lambda i: FINE) as server, client_at(server.url) as client:
        for _ in range(20):
            client.rank("anna")
        assert server.connections == 1


def test_an_address_may_have_a_path(client_at: Open) -> None:
    with serving(lambda i: FINE) as server, client_at(server.url + "/ads/") as client:
        client.rank("anna")
    assert server.seen[0].line.startswith("POST /ads/v1/rank ")


def test_a_proxy_of_the_environment_is_not_asked(client_at: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "")
    with serving(lambda i: FINE) as server, client_at(server.url) as client:
        assert client.rank("anna").ads


def test_tasks_share_a_bounded_pool_and_wait_for_a_place() -> None:
    async def scenario(url: str) -> None:
        async with AsyncClient(url, connections=3) as client:
            answers = await asyncio.gather(*(client.rank(i, deadline_ms=50_000) for i in range(30)))
        assert len({answer.exchange.request_id for answer in answers}) == 30

    with serving(lambda i: Act(held_s=0.01)) as server:
        asyncio.run(scenario(server.url))
        assert 1 <= server.connections <= 3
        assert sorted(each.body["user_id"] for each in server.seen) == list(range(30))


def test_a_full_pool_is_waited_for_until_the_deadline() -> None:
    async def scenario(url: str) -> None:
        async with AsyncClient(url, connections=1) as client:
            holding = asyncio.create_task(client.rank("holds", deadline_ms=2000))
            await asyncio.sleep(0.1)
            with pytest.raises(DeadlineError) as caught:
                await client.rank("waits", deadline_ms=100)
            assert not caught.value.maybe_taken
            with pytest.raises(DeadlineError):
                await holding

    with serving(lambda i: Act(held_s=60)) as server:
        asyncio.run(scenario(server.url))
        assert [each.body["user_id"] for each in server.seen] == ["holds"]


def test_a_thread_waits_for_a_connection_until_its_deadline() -> None:
    with serving(lambda i: Act(held_s=60)) as server, Client(server.url, connections=1) as client:

        def hold() -> None:
            with pytest.raises(DeadlineError):
                client.rank("holds", deadline_ms=2000)

        holding = threading.Thread(target=hold)
        holding.start()
        while not server.seen:
            time.sleep(0.01)
        with pytest.raises(DeadlineError) as caught:
            client.events([EventIn(user_id="waits", kind="click", ad_id=1)], deadline_ms=100)
        assert not caught.value.maybe_taken
        holding.join()
        assert len(server.seen) == 1


def test_over_tls(client_at: Open, tmp_path: Path) -> None:
    context, trusting = certificate(tmp_path)
    with serving(lambda i: FINE, context) as server:
        with client_at(server.url, verify=trusting, deadline_ms=20_000) as client:
            assert client.rank("anna").ads[0].ad_id == 7
        with client_at(server.url, deadline_ms=20_000) as client:
            with pytest.raises(UnreachableError, match="certificate verify failed") as caught:
                client.rank("anna")
            assert not caught.value.maybe_taken
        assert len(server.seen) == 1


def test_threads_share_a_client(service: Served) -> None:
    found: list[float] = []
    with Client(service.url, connections=4) as client:
        alone = {user: client.rank(user, k=3).ads for user in ("anna", "berta", "carla")}

        def ask(user: str) -> None:
            found.extend(client.rank(user, k=3).ads == alone[user] for _ in range(10))

        threads = [threading.Thread(target=ask, args=(user,)) for user in alone]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [True] * 30


def test_calls_that_are_cut_off_leave_every_connection_usable() -> None:
    """By a deadline or by their caller, before, while and after they are sent."""

    async def scenario(url: str) -> None:
        async with AsyncClient(url, connections=4) as client:
            for i in range(1, 60):
                tasks = [asyncio.create_task(client.rank(j, deadline_ms=i / 2 if j % 2 else 1000)) for j in range(6)]
                await asyncio.sleep(i / 2000)
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            answers = await asyncio.gather(*(client.rank(f"after-{i}", deadline_ms=50_000) for i in range(20)))
            assert {answer.ads[0].ad_id for answer in answers} == {7}

    with serving(lambda i: Act(held_s=0.002)) as server:
        asyncio.run(scenario(server.url))


def test_a_task_that_is_cancelled_takes_nothing_from_the_others() -> None:
    async def scenario(url: str) -> None:
        async with AsyncClient(url, connections=2) as client:
            tasks = [asyncio.create_task(client.rank(i)) for i in range(10)]
            await asyncio.sleep(0.05)
            for task in tasks[::2]:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in found[::2])
            assert all(not isinstance(each, BaseException) for each in found[1::2])
            await client.rank("after")

    with serving(lambda i: Act(held_s=0.1)) as server:
        asyncio.run(scenario(server.url))
