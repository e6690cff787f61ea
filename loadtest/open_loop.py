"""A generator process: every request at its time, whether or not earlier ones were answered. locust as a library.

`python -m loadtest.open_loop` says `ready`, then reads one plan a line and answers with ticks and one part. locust
patches the standard library for gevent when it is imported, so nothing but this process may import this module.
"""

import locust  # patches sockets before anything else opens one

from loadtest.clock import Timer

# isort: split
import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter, process_time

import gevent
from gevent.event import Event
from gevent.pool import Group
from geventhttpclient import URL, HTTPClient
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS
from locust.env import Environment

from loadtest.arrivals import times
from loadtest.plan import Plan, Tick
from loadtest.recorder import Recorder
from loadtest.traffic import Request, read_requests


class Visitor(locust.FastHttpUser):
    """All visitors in one: a pool of connections."""

    abstract = False


@dataclass(slots=True)
class Load:
    """A phase as it runs here."""

    plan: Plan
    client: HTTPClient
    """locust's, for the plan's address. Its session around it takes 0.1 to 0.2 ms a request, for statistics that nobody
    reads here, and all of it would count as the service's."""
    requests: list[Request]
    dues: list[tuple[int, float]]
    """Number of the arrival, and when it is due by perf_counter."""
    recorder: Recorder
    greenlets: Group
    in_flight: int = 0

    def ask(self, number: int, due: float) -> None:
        """Send one request and note what came of it."""
        request = self.requests[number % len(self.requests)]
        status: int | str
        timing, body = "", b""
        self.in_flight += 1
        sent = perf_counter()
        try:
            response = self.client.request("POST", request.path, body=request.body, headers=self.plan.headers)
            body = response.read()
            ended = perf_counter()
            status, timing = response.status_code, str(response.get("server-timing", ""))
        except FAILURE_EXCEPTIONS as error:
            ended = perf_counter()
            status = type(error).__name__
        self.in_flight -= 1
        self.recorder.note(due, sent, ended, status, timing, body)

    def open(self) -> None:
        """Each at its time. Sending them later than an answer may take at all would be of no use: then it gives up."""
        timer, over = Timer(), Event()
        self.greenlets.spawn(self._relay, 0, timer, over)
        over.wait()
        timer.close()

    def _relay(self, i: int, timer: Timer, over: Event) -> None:
        """Wait, hand over to the next, send. The greenlet that wakes up is the one that sends: to wake up first and to
        start one then takes 0.15 ms more."""
        if i == len(self.dues):
            over.set()
            return
        number, due = self.dues[i]
        timer.until(due)
        if perf_counter() - due > self.plan.timeout_s:
            self.recorder.gave_up(len(self.dues) - i)
            over.set()
            return
        self.greenlets.spawn(self._relay, i + 1, timer, over)
        self.ask(number, due)

    def closed(self) -> None:
        """Clients that wait for their answer before they send the next request, at its time or, when that is past or
        they are unpaced, at once."""
        upcoming = iter(self.dues)
        end = self.plan.begin + self.plan.curve[-1][0]
        for _ in range(self.plan.closed):
            self.greenlets.spawn(self._client, upcoming, end)
        self.greenlets.join()

    def _client(self, upcoming: Iterator[tuple[int, float]], end: float) -> None:
        timer = Timer()
        for number, due in upcoming:
            timer.until(self.plan.begin if self.plan.unpaced else due)
            now = perf_counter()
            if now >= end and self.plan.unpaced:
                break
            self.ask(number, now if self.plan.unpaced else due)
        timer.close()


def run(plan: Plan) -> str:
    """Carry out a plan; the part as JSON."""
    Visitor.network_timeout = Visitor.connection_timeout = plan.timeout_s
    Visitor.concurrency = plan.connections
    Visitor.host = plan.url
    visitor = Visitor(Environment(user_classes=[Visitor]))
    end = plan.begin + plan.curve[-1][0]
    dues = [
        (number, plan.begin + due)
        for number, due in enumerate(times(plan.curve, plan.seed).tolist())
        if number % plan.processes == plan.process
    ]
    recorder = Recorder(plan.begin, plan.begin + plan.warm_up_s, end)
    client = visitor.client.client.clientpool.get_client(URL(plan.url))
    load = Load(plan, client, read_requests(plan.requests), dues, recorder, Group())
    gc.collect()
    gc.freeze()
    ticker = gevent.spawn(_tick, load)
    timer = Timer()
    timer.until(plan.begin)
    timer.close()
    used, started = process_time(), perf_counter()
    if plan.closed:
        load.closed()
    else:
        load.open()
    share = (process_time() - used) / (perf_counter() - started)
    load.greenlets.join(timeout=plan.timeout_s + 1)
    recorder.lost(load.in_flight)
    load.greenlets.kill()
    ticker.kill()
    return recorder.part(share).model_dump_json()


def _tick(load: Load) -> None:
    second = 0
    while True:
        second += 1
        gevent.sleep(max(load.plan.begin + second - perf_counter(), 0.0))
        recorder = load.recorder
        latencies, failed, degraded = recorder.since_last()
        tick = Tick(
            second=second,
            sent=recorder.noted + load.in_flight,
            answered=len(latencies),
            failed=failed,
            degraded=degraded,
            in_flight=load.in_flight,
            p50_ms=latencies[len(latencies) // 2] if latencies else 0.0,
            p99_ms=latencies[int(len(latencies) * 0.99)] if latencies else 0.0,
        )
        print(f"tick {tick.model_dump_json()}", flush=True)


def main() -> None:
    """Carry out the plans of standard input until it ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(f"part {run(Plan.model_validate_json(line))}", flush=True)


if __name__ == "__main__":
    main()
