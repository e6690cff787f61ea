"""A whole result, made of outcomes that are known."""

from loadtest.knee import find_knee
from loadtest.result import Result, Stretch
from loadtest.runner import Done
from loadtest.slo import Slo, judge
from tests.loadtest.outcomes import one_server, outcome

PROMISE = Slo(rate=100, p50_ms=12, p95_ms=25, p99_ms=40)


def result(slow: bool = False, starved: bool = False) -> Result:
    main = outcome(
        lambda i: (0.030 if slow else 0.004) + 0.002 * (i % 5),
        seconds=20,
        processor=0.97 if starved else 0.2,
        degraded=40 if slow else 0,
        statuses=[200] * 99 + [429] if slow else [200],
    )
    return Result(
        scenario="capacity",
        url="http://127.0.0.1:8000",
        bundle="<demo> & co",
        slo=PROMISE,
        seed=1,
        stretches=[Stretch("steady", main, judge(main, PROMISE), [Done("another bundle", 8.0, 9.0, None)])],
        closed=outcome(lambda i: 0.003),
        knee=find_knee(lambda rate, _: one_server(200, rate, 10), 200, PROMISE),
    )
