"""The simulation against queues whose waiting is known in closed form, within sampling error, seeds fixed."""

import math
from dataclasses import replace

import numpy as np
import pytest

from loadtest.capacity.cluster import Balancing, Cluster, Loss, Run, closed_loop, open_loop
from loadtest.capacity.costs import Costs, Rules

ENDLESS = Rules(max_in_flight=10**9, deadline_s=1e9)
SERVICE_S = 0.004


def costs(turns_s: np.ndarray, intake_s: float = 0.0, answer_s: float = 0.0, around_s: float = 0.0) -> Costs:
    return Costs(turns_s, 0.5, intake_s, answer_s, around_s)


def run(turns_s: np.ndarray, busy: float, requests: int = 60_000, seed: int = 3) -> Run:
    rate = busy / float(turns_s.mean())
    return open_loop(Cluster(costs(turns_s), ENDLESS), rate, requests / rate, seed)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_equal_turns_wait_as_pollaczek_and_khinchine_say(busy: float) -> None:
    """M/D/1: the mean wait is ρ S / (2 (1 - ρ))."""
    found = run(np.array([SERVICE_S]), busy)
    assert found.latency_s.mean() - SERVICE_S == pytest.approx(busy * SERVICE_S / 2 / (1 - busy), rel=0.06)
    assert found.busy == pytest.approx(busy, rel=0.02)


def test_unequal_turns_wait_as_pollaczek_and_khinchine_say() -> None:
    """M/G/1: the mean wait is λ E[S²] / (2 (1 - ρ)); here 9 of 10 turns take 1 ms, one takes 11."""
    turns = np.array([0.001] * 9 + [0.011])
    found = run(turns, 0.6, 100_000)
    rate = 0.6 / turns.mean()
    wait = rate * float((turns**2).mean()) / 2 / (1 - 0.6)
    assert found.latency_s.mean() - turns.mean() == pytest.approx(wait, rel=0.06)


def test_exponential_turns_have_exponential_latencies() -> None:
    """M/M/1: a request takes longer than t with probability exp(-(μ - λ) t)."""
    turns = np.random.default_rng(1).exponential(SERVICE_S, 400_000)
    found = run(turns, 0.7, 150_000)
    for percent in (50, 95, 99):
        expected = -math.log(1 - percent / 100) * SERVICE_S / (1 - 0.7)
        assert np.percentile(found.latency_s, percent) == pytest.approx(expected, rel=0.06), percent


def test_a_closed_loop_takes_what_the_process_can() -> None:
    parts = costs(np.array([0.002, 0.004]), intake_s=0.0006, answer_s=0.0004)
    assert closed_loop(Cluster(parts, ENDLESS), 8, 10.0, 1) == pytest.approx(1 / parts.busy_s, rel=0.02)
    assert closed_loop(Cluster(parts, ENDLESS, 4, "least-requests"), 32, 5.0, 1) == pytest.approx(
        4 / parts.busy_s, rel=0.05
    )


def test_new_requests_are_taken_in_before_older_ones_have_their_turn() -> None:
    """Of the same work, what is done on arrival delays those that wait: latencies grow, the throughput does not."""
    fixed = np.array([0.002])
    before = open_loop(Cluster(costs(fixed, intake_s=0.002), ENDLESS), 200, 200, 1)
    after = open_loop(Cluster(costs(fixed, answer_s=0.002), ENDLESS), 200, 200, 1)
    assert np.percentile(before.latency_s, 99) > 1.1 * np.percentile(after.latency_s, 99)
    assert before.busy == pytest.approx(after.busy, rel=0.001)


def test_a_process_that_waits_in_between_is_slower() -> None:
    """Twice as slow at a quarter of what it can do, as it is from half on."""
    parts = costs(np.array([0.002, 0.004]), intake_s=0.0006, answer_s=0.0004)
    waking = replace(parts, slowness=((0.25, 2.0), (0.5, 1.0), (1.0, 1.0)))
    for share, times in ((0.1, 2.0), (0.25, 2.0), (0.375, 1.5), (0.5, 1.0), (0.9, 1.0), (1.5, 1.0)):
        rate = share / parts.busy_s
        assert waking.slowed_at(rate) == pytest.approx(times)
        assert waking.busy_at(rate) == pytest.approx(share * times)
        if share < 1:
            found = open_loop(Cluster(waking, ENDLESS, 2), 2 * rate, 5.0, 1)
            assert found.latency_s == pytest.approx(
                open_loop(Cluster(parts.slower(times), ENDLESS, 2), 2 * rate, 5.0, 1).latency_s
            )
            assert found.busy == pytest.approx(share * times, rel=0.2)
    assert closed_loop(Cluster(waking, ENDLESS), 8, 10.0, 1) == pytest.approx(1 / parts.busy_s, rel=0.02)


def test_those_that_are_left_get_more_and_are_faster() -> None:
    """Of two processes at a quarter of what they can do, one is lost."""
    waking = replace(costs(np.array([0.004])), slowness=((0.25, 2.0), (0.5, 1.0), (1.0, 1.0)))
    found = open_loop(Cluster(waking, ENDLESS, 2), 0.5 / 0.004, 20.0, 1, loss=Loss(10.0, 1))
    assert np.percentile(found.latency_s[found.due_s < 9.9], 1) == pytest.approx(0.008)
    assert np.percentile(found.latency_s[found.due_s > 10.1], 1) == pytest.approx(0.004)


def test_what_lies_around_is_added_and_keeps_nobody_waiting() -> None:
    fixed = np.array([SERVICE_S])
    near = open_loop(Cluster(costs(fixed), ENDLESS), 150, 60, 1)
    far = open_loop(Cluster(costs(fixed, around_s=0.02), ENDLESS), 150, 60, 1)
    assert far.latency_s - near.latency_s == pytest.approx(0.02)


def test_redis_is_waited_for_while_others_are_served() -> None:
    """20 ms of Redis at 200/s would be 4 processes' time; it costs none. Half of the users are in memory."""
    rules = Rules(10**9, 1e9, redis_s=0.02, cache_hits=0.5)
    with_redis = open_loop(Cluster(costs(np.array([0.001])), rules), 200, 100, 1)
    without = open_loop(Cluster(costs(np.array([0.001])), ENDLESS), 200, 100, 1)
    assert with_redis.busy == pytest.approx(without.busy, rel=0.001)
    more = with_redis.latency_s.mean() - without.latency_s.mean()
    assert more == pytest.approx(0.01, rel=0.05)


def test_processes_dealt_to_at_random_are_like_one() -> None:
    """Thinning: what one process gets of a Poisson process is one."""
    turns = np.random.default_rng(2).gamma(4, SERVICE_S / 4, 100_000)
    one = open_loop(Cluster(costs(turns), ENDLESS), 150, 400, 1)
    many = open_loop(Cluster(costs(turns), ENDLESS, workers=20), 150 * 20, 20, 2)
    assert np.percentile(many.latency_s, 99) == pytest.approx(np.percentile(one.latency_s, 99), rel=0.1)


def test_whom_requests_are_dealt_to_matters() -> None:
    turns = np.random.default_rng(2).gamma(4, SERVICE_S / 4, 100_000)

    def p99(balancing: Balancing) -> float:
        cluster = Cluster(costs(turns), ENDLESS, 10, balancing)
        return float(np.percentile(open_loop(cluster, 0.8 * 10 / SERVICE_S, 20, 1).latency_s, 99))

    assert p99("least-requests") < p99("round-robin") < p99("random") / 2


def test_places_in_flight_bound_the_wait_and_the_rest_is_refused() -> None:
    """Twice what it can take: requests that are let in wait for at most the 9 others."""
    rules = Rules(max_in_flight=10, deadline_s=1e9)
    found = open_loop(Cluster(costs(np.array([SERVICE_S]), intake_s=0.0001), rules), 500, 20, 1)
    assert found.statuses["429"] == pytest.approx(0.5 * len(found.due_s), rel=0.1)
    assert np.nanmax(found.latency_s) < 12 * (SERVICE_S + 0.001)
    assert np.isnan(found.latency_s).sum() == found.statuses["429"]
    outcome = found.outcome()
    assert outcome.error_rate == pytest.approx(found.statuses["429"] / len(found.due_s))
    assert outcome.answered == found.statuses["200"]


def test_a_loss_takes_requests_under_way_and_loads_the_others() -> None:
    turns = np.array([SERVICE_S])
    found = open_loop(Cluster(costs(turns), ENDLESS, workers=3), 300, 40, 1, loss=Loss(20.0, 1))
    assert 0 < found.statuses["no answer"] < 10
    lost = np.isnan(found.latency_s)
    assert (found.due_s[lost] < 20).all()
    before, after = found.latency_s[found.due_s < 19], found.latency_s[found.due_s > 21]
    assert np.percentile(after, 99) > 1.2 * np.percentile(before, 99)


def test_the_same_seed_gives_the_same_requests() -> None:
    turns = np.random.default_rng(2).gamma(4, SERVICE_S / 4, 1000)
    cluster = Cluster(costs(turns), ENDLESS, 3, "least-requests")
    one, again, other = (open_loop(cluster, 300, 5, seed).latency_s for seed in (1, 1, 2))
    assert (one == again).all()
    assert len(one) != len(other) or (one != other).any()


def test_the_warm_up_is_left_out() -> None:
    found = open_loop(Cluster(costs(np.array([SERVICE_S])), ENDLESS), 100, 10, 1, warm_up_s=5)
    assert found.due_s.min() >= 5
    outcome = found.outcome()
    assert outcome.seconds == 10
    assert outcome.offered == pytest.approx(1000, rel=0.1)
    assert outcome.latency.percentile(99) == pytest.approx(np.percentile(found.latency_s, 99) * 1e3, rel=0.01)
