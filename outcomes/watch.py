"""Guardrails beside the collector: a thread that reads its tables and stops arms through the service."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import polars as pl

from control.client import Admin
from control.state import Experiment
from outcomes.arm_users import DAY_MS
from outcomes.guard import Guard, Tables
from outcomes.results import Reading
from outcomes.tables import read_table


def read_reading(path: Path | None) -> Reading:
    """How experiments are read, from a JSON file; without one, the defaults. OSError, or pydantic's ValidationError."""
    return Reading() if path is None else Reading.model_validate_json(path.read_bytes())


def tables_of(folder: Path, reading: Reading, experiment: Experiment) -> Tables:
    """What the collector's tables have of an experiment, and of its users' past."""
    start = int(experiment.started_at * 1000)
    past = start - int(reading.past_days * DAY_MS)
    return _lazy(folder, "requests", start), _lazy(folder, "impressions", max(0, past))


@contextmanager
def watching(folder: Path, admin: Admin, reading: Reading, every_s: float) -> Iterator[None]:
    """Inside, every `every_s` seconds each running experiment is judged by the tables in `folder`, and arms that
    crossed a limit are stopped. What fails is logged and tried again."""
    guard = Guard(_agreed(admin), partial(tables_of, folder, reading), admin, reading)
    ended = threading.Event()
    thread = threading.Thread(target=guard.watch, args=(every_s, ended), name="guardrails", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        admin.close()


def _agreed(admin: Admin) -> Callable[[], tuple[Experiment, ...]]:
    def experiments() -> tuple[Experiment, ...]:
        state = admin.state().agreed
        return () if state is None else state.experiments

    return experiments


def _lazy(folder: Path, table: str, from_ms: int) -> pl.LazyFrame:
    return read_table(folder, table, from_ms).lazy()
