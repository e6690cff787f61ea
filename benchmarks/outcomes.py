"""What it costs to log an answer, and how fast `adrank outcomes` takes answers: over a Redis of its own."""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from benchmarks.bundles import ROOT, work_bundle
from benchmarks.features import redis_server
from benchmarks.report import Report, Table
from control.state import Overrides
from outcomes.collector import Collector, Timing
from outcomes.streams import Streams
from service.example import example_request
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.metrics import Metrics
from service.redis_store import LogKeys, RedisStore
from service.served_log import Inputs, ServedLog
from service.settings import Settings
from service.timing import RequestTiming
from service.user_cache import StoredUser

PREFIX = "bench:"
ADS, EVENTS = 10, 50
"""Ads of an answer; events of a user's record."""
CLICKS = 2
"""Of each answer."""
BATCH = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many answers."""
    parser.add_argument("--answers", type=int, metavar="N", help="answers that are logged [50,000; 5,000 with --quick]")


def run(arguments: argparse.Namespace) -> Report:
    """`outcomes.add_us` while a request waits, `outcomes.write_us` of the process's time behind its back, and
    `outcomes.answers_per_s` that the collector takes, each with its impressions and clicks. FileNotFoundError when
    there is no Redis server on this machine."""
    answers = arguments.answers or (5_000 if arguments.quick else 50_000)
    folder = work_bundle(ROOT, 10_000, "light", users=64)
    settings = Settings(bundle=folder, log_queue_bytes=1 << 30)
    live = load_bundle(folder, settings)
    report = Report("outcomes")
    with redis_server() as port, tempfile.TemporaryDirectory(prefix="adrank-outcomes-") as out:
        url = f"redis://127.0.0.1:{port}/0"
        add_us, write_us, size = asyncio.run(_log(live, settings, url, answers))
        begun = perf_counter()
        collector = Collector(Path(out), Streams(url, PREFIX), Timing())
        while collector.step():
            pass
        collector.finish()
        rate = answers / (perf_counter() - begun)
        written = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file()) / answers
    report.figures |= {
        "outcomes.add_us": add_us,
        "outcomes.write_us": write_us,
        "outcomes.answers_per_s": rate,
        "outcomes.entry_bytes": size,
        "outcomes.disk_bytes": written,
    }
    rows: list[tuple[str | int | float, ...]] = [
        ("an answer put into the queue, us", add_us),
        ("its entry made and written, us of the event loop", write_us),
        ("bytes of an entry", size),
        ("answers a second that the collector takes", rate),
        ("bytes on disk for an answer and its events", written),
    ]
    title = f"{answers:,} answers of {ADS} ads, records of {EVENTS} events, {ADS} impressions and {CLICKS} clicks each"
    report.tables.append(Table(title, ("what", "measured"), rows))
    return report


async def _log(live: LoadedBundle, settings: Settings, url: str, answers: int) -> tuple[float, float, float]:
    """Log so many answers and their events; microseconds to add and to write one, and its bytes."""
    store = RedisStore(
        url,
        prefix=PREFIX,
        timeout_s=1.0,
        write_timeout_s=5.0,
        pool_size=4,
        history_limit=EVENTS,
        max_record_bytes=262_144,
        log=LogKeys.of(PREFIX, 10 * answers),
    )
    log = ServedLog(store, Metrics(), settings, last_s=600.0)
    shown = [live.bundle.ads.index.value_of(row) for row in range(2, 2 + ADS)]
    asked = json.dumps(example_request(live.bundle, ADS)).encode()
    record = b"{}\n" + b"".join(b'["click",%d,%d]\n' % (1_700_000_000_000 + i, i) for i in range(EVENTS))
    timings = [
        RequestTiming(inputs=Inputs(live, 1, {}, Overrides(bundle=live.id), StoredUser(record))) for _ in range(answers)
    ]
    made = [_answer(str(i), shown) for i in range(answers)]
    begun = perf_counter()
    for i, timing in enumerate(timings):
        log.add(str(i), f"u{i % 1000}", asked, made[i], timing)
    add_us = (perf_counter() - begun) / answers * 1e6
    size = len(asked) + len(record) + len(made[-1])
    log.start()
    begun = process_time()
    await log.stop()
    write_us = (process_time() - begun) / answers * 1e6
    for first in range(0, answers, BATCH):
        events = [each for i in range(first, min(first + BATCH, answers)) for each in _events(i, shown)]
        await store.append({}, json.dumps({"events": events}).encode())
    await store.close()
    return add_us, write_us, float(size)


def _answer(request_id: str, shown: Sequence[Any]) -> bytes:
    ads = [
        {"ad_id": ad, "position": i + 1, "pctr": 0.0123456789 * i, "bid": 1.25, "ecpm": 0.01}
        for i, ad in enumerate(shown)
    ]
    return json.dumps(
        {"request_id": request_id, "bundle_id": "work", "ads": ads, "stages": [], "degraded": []}
    ).encode()


def _events(i: int, shown: Sequence[Any]) -> list[dict[str, Any]]:
    name = {"user_id": f"u{i % 1000}", "request_id": str(i)}
    seen = [name | {"kind": "impression", "ad_id": ad} for ad in shown]
    return seen + [name | {"kind": "click", "ad_id": ad} for ad in shown[:CLICKS]]
