"""`adrank features`: fill Redis with users' features, and look at one user's."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bundle.errors import BundleError, RecordError
from bundle.folder import open_bundle
from bundle.record import Event, UserRecord, pack, unpack
from control.command_line import with_redis
from service.errors import ServiceError, SettingsError
from service.redis_store import RedisStore
from service.settings import Settings

TIMEOUT_S = 10.0
"""A batch of 1,000 records takes about 10 ms; nobody waits for an answer here, so a busy Redis gets time."""


def main(argv: list[str]) -> int:
    """0 when all went well, 1 for a user that is not there, 2 for wrong input or a Redis that does not answer."""
    arguments = _parser().parse_args(argv)
    try:
        return asyncio.run(_load(arguments) if arguments.action == "load" else _show(arguments))
    except (BundleError, ServiceError) as error:
        print(f"adrank features {arguments.action}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adrank features", description="Users' features in Redis.")
    actions = parser.add_subparsers(dest="action", required=True)
    load = actions.add_parser(
        "load",
        help="write users' records",
        description="Write one packed record a user, replacing records that are there; doing it twice changes nothing.",
    )
    source = load.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, metavar="DIR", help="the demo users of this bundle")
    source.add_argument(
        "--file",
        type=Path,
        metavar="JSONL",
        help='one user a line: {"user_id": "7", "profile": {"city": "Lyon"}, "events": [["click", 1650812741436, 52]]}',
    )
    load.add_argument(
        "--batch", type=_positive, default=1000, metavar="N", help="users written in one round trip [1000]"
    )
    load.add_argument("--ttl-s", type=int, default=0, metavar="S", help="forget users after so many seconds [0: never]")
    show = actions.add_parser("show", help="print one user's record")
    show.add_argument("user_id")
    for action in (load, show):
        with_redis(action)
    return parser


async def _load(arguments: argparse.Namespace) -> int:
    if arguments.bundle is not None:
        records, total = _of_bundle(arguments.bundle)
    else:
        records, total = _of_file(arguments.file), None
    store = _store(arguments, arguments.ttl_s)
    users = size = 0
    try:
        with tqdm(total=total, unit=" users", desc="features") as progress:
            while batch := list(islice(records, arguments.batch)):
                await store.put(batch)
                users += len(batch)
                size += sum(len(record) for _, record in batch)
                progress.update(len(batch))
    finally:
        await store.close()
    print(f"{users} users written, {size} bytes")
    return 0


async def _show(arguments: argparse.Namespace) -> int:
    store = _store(arguments, 0)
    try:
        value = await store.get(arguments.user_id)
    finally:
        await store.close()
    if value is None:
        print(f"adrank features show: there is no user {arguments.user_id!r}", file=sys.stderr)
        return 1
    record = unpack(value)
    print(json.dumps(dict(record.profile), ensure_ascii=False))
    for event in record.events:
        print(json.dumps([event.kind, event.time_ms, *event.values], ensure_ascii=False))
    return 0


def _store(arguments: argparse.Namespace, ttl_s: int) -> RedisStore:
    if not arguments.redis:
        raise SettingsError("no Redis given: use --redis or ADRANK_REDIS_URL")
    return RedisStore(
        arguments.redis,
        prefix=arguments.prefix,
        timeout_s=TIMEOUT_S,
        write_timeout_s=TIMEOUT_S,
        pool_size=1,
        history_limit=1,
        max_record_bytes=Settings.model_fields["max_record_bytes"].default,
        ttl_s=ttl_s,
    )


def _of_bundle(folder: Path) -> tuple[Iterator[tuple[str, bytes]], int]:
    users = open_bundle(folder).users
    if users is None:
        raise SettingsError(f"{folder}: this bundle has no demo users")
    return ((user_id, users.get(user_id) or b"") for user_id in users.ids()), len(users.index)


def _of_file(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _record(f"{path}, line {number}", line)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error


def _record(place: str, line: bytes) -> tuple[str, bytes]:
    """The user id and packed record in one line. RecordError names the place and what is wrong."""
    try:
        content: Any = json.loads(line)
        if not isinstance(content, dict):
            raise TypeError(f"an object is expected, not {type(content).__name__}")
        if strange := sorted(set(content) - {"user_id", "profile", "events"}):
            raise ValueError(f"unknown keys {strange}; known: user_id, profile, events")
        user_id = content["user_id"]
        if type(user_id) not in (int, str) or user_id == "":
            raise TypeError(f"user_id is a whole number or a text, not {user_id!r:.40}")
        name = str(user_id)
        name.encode()
        events = tuple(Event(str(kind), int(at), tuple(values)) for kind, at, *values in content.get("events", []))
        packed = pack(UserRecord(dict(content.get("profile", {})), events))
        unpack(packed)
    except (RecordError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RecordError(f"{place}: not a user's record: {error!r}") from error
    return name, packed


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value
