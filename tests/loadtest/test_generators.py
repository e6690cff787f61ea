"""Generator processes against a small real server: what is due is sent, counted from its intended start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from client.calls import RANK, SCORE
from loadtest.arrivals import constant
from loadtest.generators import GeneratorError, Generators
from loadtest.plan import Plan, Tick
from loadtest.traffic import Request, write_requests
from tests.loadtest.conftest import answering

REQUESTS = [Request(RANK if i % 2 else SCORE, json.dumps({"user_id": f"u{i}"})) for i in range(20)]


@pytest.fixture
def requests(tmp_path: Path) -> str:
    write_requests(REQUESTS, tmp_path / "requests.jsonl")
    return str(tmp_path / "requests.jsonl")


def plan(url: str, requests: str, rate: float, seconds: float) -> Plan:
    return Plan(url=url, curve=constant(rate, seconds), seed=1, requests=requests, begin=0)


def test_every_arrival_is_sent_once_by_one_of_the_processes(generators: Generators, requests: str) -> None:
    ticks: list[Tick] = []
    with answering(lambda i: (200, 0.0)) as (url, got):
        found = generators.run(plan(url, requests, 20, 2), ticks.append)
    assert (found.offered, found.answered, found.latency.count) == (40, 40, 40)
    assert sorted(got) == sorted([(each.path, each.body.encode()) for each in REQUESTS] * 2)
    assert found.statuses == {"200": 40}
    assert found.bundles["small"].count == 40
    assert sum(each.offered for each in found.windows) == 40
    assert [tick.second for tick in ticks] == sorted(tick.second for tick in ticks)
    assert ticks


def test_an_answer_that_is_late_is_late_and_does_not_hold_up_others(generators: Generators, requests: str) -> None:
    """The server stalls 0.5 s on each: a closed loop of one client would have sent 4 in 2 s."""
    with answering(lambda i: (200, 0.5)) as (url, got):
        found = generators.run(plan(url, requests, 20, 2))
        assert found.answered == len(got) == 40
    assert found.latency.percentile(1) >= 499
    assert found.stages["finerank"].percentile(50) == pytest.approx(500, rel=0.01)
    assert found.stages["network"].count == 40


def test_a_closed_loop_hides_what_the_open_loop_shows(generators: Generators, requests: str) -> None:
    """Each client's first answer takes 1 s. Those that wait for it have one slow request; 30 were due meanwhile."""
    with answering(lambda i: (200, 1.0 if i < 2 else 0.0)) as (url, _):
        one = plan(url, requests, 30, 2).model_copy(update={"closed": 1})
        found = generators.run(one)
    assert found.latency.percentile(75) > 200
    assert found.uncorrected.percentile(75) < found.latency.percentile(75)
    assert found.uncorrected.percentile(99) >= 999


def test_an_unpaced_loop_sends_what_the_server_takes(generators: Generators, requests: str) -> None:
    with answering(lambda i: (200, 0.1)) as (url, got):
        greedy = plan(url, requests, 10_000, 1).model_copy(update={"closed": 2, "unpaced": True})
        found = generators.run(greedy)
    assert 4 <= len(got) <= 40  # two processes, two clients each, 0.1 s an answer
    assert found.answered == len(got)


def test_refusals_and_time_outs_are_errors_by_name(generators: Generators, requests: str) -> None:
    with answering(lambda i: (429 if i % 2 else 200, 0.0)) as (url, _):
        found = generators.run(plan(url, requests, 20, 1))
        assert found.statuses == {"200": 10, "429": 10}
        assert found.error_rate == 0.5
    with answering(lambda i: (200, 3.0)) as (url, _):
        late = plan(url, requests, 4, 1).model_copy(update={"timeout_s": 0.5})
        found = generators.run(late)
        assert (found.offered, found.answered) == (4, 0)
        assert sum(found.statuses.values()) == 4
        assert "200" not in found.statuses
    gone = generators.run(plan("http://127.0.0.1:9", requests, 4, 1))
    assert gone.statuses == {"ConnectionRefusedError": 4}


def test_the_warm_up_is_sent_but_not_counted(generators: Generators, requests: str) -> None:
    with answering(lambda i: (200, 0.0)) as (url, got):
        found = generators.run(plan(url, requests, 20, 2).model_copy(update={"warm_up_s": 1.0}))
    assert len(got) == 40
    assert 10 <= found.offered <= 30
    assert found.seconds == 1.0


def test_a_process_that_ends_is_said(requests: str) -> None:
    with Generators(1) as started, pytest.raises(GeneratorError, match="ended with exit code 1"):
        started.run(plan("http://127.0.0.1:9", requests + ".gone", 4, 1))


def test_locust_is_loaded_by_generator_processes_alone() -> None:
    program = "import sys, loadtest.command; print({'locust', 'gevent'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
