"""From rates to replicas and Redis, by arithmetic done by hand."""

from typing import Any

import numpy as np
import pytest

from loadtest.capacity.costs import Costs, Rules
from loadtest.capacity.errors import CapacityError
from loadtest.capacity.measured import Measured, read_measured
from loadtest.capacity.rehearsal import rehearse
from loadtest.capacity.sizing import Process, plan, process
from loadtest.capacity.wanted import Wanted
from tests.loadtest.capacity.services import AROUND_MS, MIB, load_test

ONE = Process(Costs(np.array([0.004]), 0.5, 0.0005, 0.0005), Rules(), {"random": 100.0, "round-robin": 150.0})


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return read_measured(load_test(tmp_path_factory.mktemp("capacity") / "found.json"))


def wanted(**more: Any) -> Wanted:
    return Wanted.model_validate({"rps": 10_000, "p99": "20ms", "requests": 2000} | more)


def test_replicas_are_whole_and_zones_equal(measured: Measured) -> None:
    """100 processes are 13 replicas of 8, with a spare one 14; two zones that remain have 7 each."""
    found = plan(measured, wanted(), ONE)
    assert (found.processes_needed, found.replicas_needed) == (100, 13)
    assert (found.replicas_a_zone, found.replicas, found.cores) == (7, 21, 168)


@pytest.mark.parametrize(
    ("more", "replicas"),
    [
        ({"zones": 1, "zones_lost": 0, "spare": 0}, 13),
        ({"zones": 1, "zones_lost": 0, "spare": 2}, 15),
        ({"zones": 4, "zones_lost": 2, "spare": 0}, 28),
        ({"workers": 1, "zones": 1, "zones_lost": 0, "spare": 0}, 100),
        ({"balancing": "round-robin", "zones": 1, "zones_lost": 0, "spare": 0}, 9),
        ({"rps": 1, "zones": 3, "zones_lost": 0, "spare": 0}, 3),
    ],
)
def test_zones_spares_and_balancing_count(measured: Measured, more: dict[str, Any], replicas: int) -> None:
    assert plan(measured, wanted(**more), ONE).replicas == replicas


def test_memory_is_each_process_and_files_once_a_replica(measured: Measured) -> None:
    found = plan(measured, wanted(memory_margin=1, cache_memory="20MiB"), ONE)
    assert found.replica_memory == 8 * (80 + 20) * MIB + 50 * MIB
    assert found.memory == 21 * found.replica_memory
    said = plan(measured, wanted(memory_margin=2, own_memory="10MiB", mapped_memory="0B", cache_memory="0B"), ONE)
    assert said.replica_memory == 2 * 8 * 10 * MIB


def test_redis_is_cut_by_memory_and_by_commands(measured: Measured) -> None:
    """10,000 reads, of 1,000 events 3 commands each, of 168 processes 6."""
    found = plan(measured, wanted(users=1000, user_bytes="2kB"), ONE)
    assert found.redis_commands == 10_000 + 1000 * 3 + 168 * 6
    assert (found.redis_data, found.redis_memory) == (2_000_000, 4_000_000)
    assert (found.shards_by_memory, found.shards_by_commands, found.shards) == (1, 1, 1)
    by_commands = plan(measured, wanted(users=1000, shard_operations=5000, cache_hits=0.5), ONE)
    assert by_commands.redis_commands == 5000 + 3000 + 1008
    assert (by_commands.shards_by_commands, by_commands.shards) == (2, 2)
    by_memory = plan(measured, wanted(users=10_000, user_bytes="2kB", shard_memory="3MB"), ONE)
    assert (by_memory.shards_by_memory, by_memory.shards) == (7, 7)


def test_memory_that_nobody_measured_has_to_be_said(measured: Measured) -> None:
    footprint = measured.test.footprint.model_copy(update={"own_bytes": None, "mapped_bytes": None})
    far = Measured("far.json", measured.test.model_copy(update={"footprint": footprint}), measured.turns_s)
    with pytest.raises(CapacityError, match=r"far\.json does not say what memory.*--own-memory"):
        plan(far, wanted(), ONE)
    assert plan(far, wanted(own_memory="1MiB", mapped_memory="0B"), ONE).replica_memory > 0


def test_a_process_costs_more_where_it_will_stand(measured: Measured) -> None:
    """Slower by a half, events, Redis, network: turns of 3 ms and 1 ms besides become 4.5, 1.5, 0.15 and 0.2."""
    bare = process(measured, wanted(slowdown=1, network="0ms", events=0, redis_time="0ms", redis_work="0ms"))
    assert bare.costs.busy_s * 1e3 == pytest.approx(4.0, rel=0.02)
    assert bare.costs.around_s * 1e3 == pytest.approx(AROUND_MS, abs=0.3)
    there = process(measured, wanted(slowdown=1.5, network="2ms", events=0.1, redis_work="0.2ms"))
    assert there.costs.busy_s * 1e3 == pytest.approx(6.35, rel=0.02)
    assert there.costs.around_s - bare.costs.around_s == pytest.approx(0.002)
    assert there.rules.redis_s == pytest.approx(0.0003)
    assert there.rates["random"] < bare.rates["random"]
    assert bare.rates["random"] < bare.rates["least-requests"] < bare.most


def test_the_plan_holds_in_a_rehearsal_and_with_a_zone_lost(measured: Measured) -> None:
    asked = wanted(requests=5000)
    one = process(measured, asked)
    planned = plan(measured, asked, one)
    found = rehearse(planned, one, asked)
    whole, lost = found.stretches
    assert whole.p99_ms < lost.p99_ms < 1.15 * asked.p99
    assert lost.busy == pytest.approx(whole.busy * 1.5)
    assert whole.error_rate == lost.error_rate == 0
    assert 0 < found.lost < 10_000 * lost.p99_ms / 1e3
    assert found.processes == 24
    assert found.rate == pytest.approx(10_000 * 24 / planned.cores)
    late = found.seconds > found.lost_at_s * 1.1
    assert found.p99_ms[late].mean() > found.p99_ms[~late].mean()


def test_without_zones_to_lose_there_is_one_stretch(measured: Measured) -> None:
    asked = wanted(zones=1, zones_lost=0)
    found = rehearse(plan(measured, asked, ONE), ONE, asked)
    assert [each.name for each in found.stretches] == ["all zones"]
