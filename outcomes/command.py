"""`adrank outcomes`: take answers and events from Redis, and write them as tables and as a log to train on."""

import argparse
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Event
from types import FrameType

from pydantic import ValidationError

from control.command_line import admin_of, asking, with_redis
from outcomes.collector import Collector, Timing
from outcomes.description import read_description
from outcomes.errors import OutcomesError
from outcomes.streams import RedisDownError, Streams
from outcomes.training import TrainingLog
from outcomes.watch import read_reading, watching

log = logging.getLogger("adrank.outcomes")
IDLE_S = 0.2
"""Between looks at streams that had nothing."""
RETRY_S = 1.0
"""Between attempts while Redis is down."""


def main(argv: list[str]) -> int:
    """Run until told to stop: 0; 2 with one line on standard error for what cannot be used."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        if not arguments.redis:
            raise OutcomesError("no Redis given: use --redis or ADRANK_REDIS_URL")
        timing = Timing(
            arguments.flush_seconds, round(arguments.span_minutes * 60_000), round(arguments.window_minutes * 60_000)
        )
        description = None if arguments.dataset is None else read_description(arguments.dataset)
        arguments.out.mkdir(parents=True, exist_ok=True)
        guardrails = _guardrails(arguments)
        with _alone(arguments.out), _told_to_stop() as stop, guardrails:
            training = None if description is None else TrainingLog(arguments.out, description)
            streams = Streams(arguments.redis, arguments.prefix)
            collector = Collector(arguments.out, streams, timing, training)
            try:
                _run(collector, stop, once=arguments.once)
            finally:
                streams.close()
    except OutcomesError as error:
        print(f"adrank outcomes: {error}", file=sys.stderr)
        return 2
    return 0


def _guardrails(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Guardrails of the service that was named; none without one."""
    try:
        reading = read_reading(arguments.reading)
    except ValidationError as error:
        raise OutcomesError(f"{arguments.reading}: {str(error).splitlines()[-2].strip()}") from error
    if arguments.url is None:
        return nullcontext()
    return watching(arguments.out, admin_of(arguments), reading, arguments.look_seconds)


def _run(collector: Collector, stop: Event, *, once: bool) -> None:
    failing = False
    while not stop.is_set():
        try:
            taken = collector.step()
        except RedisDownError as error:
            if once:
                raise
            if not failing:
                log.warning("Redis fails, trying again: %s", error)
            failing = True
            stop.wait(RETRY_S)
            continue
        failing = False
        if not taken:
            if once:
                break
            stop.wait(IDLE_S)
    collector.finish()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """OutcomesError when another collector writes to the folder. The system drops the lock of a process that ends."""
    with (folder / "collector.lock").open("a") as file:  # who is refused leaves the other one's id there
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutcomesError(f"{folder}: another collector writes here") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def _told_to_stop() -> Iterator[Event]:
    """Set by SIGTERM and Ctrl-C."""
    stop = Event()

    def told(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {each: signal.signal(each, told) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adrank outcomes",
        description="Take rank answers and events from Redis Streams, and write them as Parquet: tables of requests "
        "and impressions, and with --dataset a log that `adrank train` reads. Runs until it is stopped; a crash loses "
        "nothing and writes nothing twice.",
    )
    with_redis(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="YAML",
        help="dataset.yaml that the served bundle was trained on: the training log continues it",
    )
    parser.add_argument(
        "--window-minutes",
        type=float,
        default=30,
        metavar="M",
        help="impressions and clicks count for so long after the answer [%(default)s]",
    )
    parser.add_argument(
        "--span-minutes", type=float, default=10, metavar="M", help="requests of one Parquet file [%(default)s]"
    )
    parser.add_argument(
        "--flush-seconds", type=float, default=5, metavar="S", help="how old what is in memory gets [%(default)s]"
    )
    asking(parser, None, "the service: its arms that cross a guardrail are stopped [none are]")
    parser.add_argument("--who", default="guardrails", help="for the audit log [%(default)s]")
    parser.add_argument(
        "--look-seconds", type=float, default=60, metavar="S", help="between two looks at the guardrails [%(default)s]"
    )
    parser.add_argument("--reading", type=Path, metavar="FILE", help="how experiments are read, JSON (docs/verdict.md)")
    parser.add_argument("--once", action="store_true", help="end when the streams are empty")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="[%(default)s]"
    )
    return parser
