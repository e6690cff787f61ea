"""What the service logs, written to a Redis of the tests' own: without a service where only the collector matters."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError

from outcomes.streams import Streams
from tests.patience import PATIENCE_S, until
from tests.service.conftest import RedisServer

PREFIX = "t:"
SERVED, EVENTS, LIVING = f"log:{PREFIX}served", f"log:{PREFIX}events", f"log:{PREFIX}collector"
DAY = 86_400_000
NOON = 2_016_360_000_000
"""2033-11-23 12:00 UTC: ahead of any clock, so that only the entries say how late it is."""


class DurableRedis(RedisServer):
    """Writes every command to a file that it reads when it starts again."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "--appendonly", "yes", "--appendfsync", "everysec")

    def start(self) -> None:
        super().start()
        until(self._answers)

    def _answers(self) -> bool:
        """It listens before it has read its file."""
        with Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except (BusyLoadingError, RedisConnectionError):
                return False

    def kill(self) -> None:
        """kill -9"""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.process = None


class Feed:
    """Writes entries with ids of the test's choice, which stand for when they were added."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis: Any = Redis.from_url(url)
        self.forget()

    def forget(self) -> None:
        """Empty streams, as if they had never been."""
        for key in (SERVED, EVENTS, LIVING):
            self.redis.delete(key)

    def streams(self) -> Streams:
        return Streams(self.url, PREFIX)

    def answer(self, at_ms: int, request_id: str, ads: Sequence[object], **given: Any) -> None:
        self.redis.xadd(SERVED, dict(pairs(answer_fields(at_ms, request_id, ads, **given))), id=f"{at_ms}-*")

    def shadow(
        self, at_ms: int, request_id: str, ads: Sequence[object], pctr: Sequence[float | None], **given: str
    ) -> None:
        self.redis.xadd(SERVED, {"shadow": shadow_json(request_id, ads, pctr, **given)}, id=f"{at_ms}-*")

    def events(self, at_ms: int, *events: dict[str, Any]) -> None:
        self.redis.xadd(EVENTS, {"events": json.dumps({"events": events})}, id=f"{at_ms}-*")

    def left(self) -> tuple[int, int]:
        """Entries that Redis still has."""
        return int(self.redis.xlen(SERVED)), int(self.redis.xlen(EVENTS))

    def close(self) -> None:
        self.redis.close()


def pairs(fields: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(fields[::2], fields[1::2], strict=True)


def answer_fields(
    at_ms: int,
    request_id: str,
    ads: Sequence[object],
    *,
    user: object = "ann",
    arms: dict[str, str] | None = None,
    status: int = 200,
    record: bytes | None = None,
    asked: dict[str, Any] | None = None,
) -> list[str | bytes]:
    """An entry as service/served_log.py writes it, as far as outcomes read it."""
    head = {
        "format": 1,
        "request_id": request_id,
        "user_id": str(user),
        "time_ms": at_ms - 5,
        "status": status,
        "total_ms": 2.5,
        "degraded": False,
        "version": 3,
        "arms": arms or {},
        "bundle_id": "b1",
    }
    fields: list[str | bytes] = ["head", json.dumps(head), "asked", json.dumps({"user_id": user} | (asked or {}))]
    if record is not None:
        fields += ["record", record]
    if status == 200:
        shown = [{"ad_id": ad, "position": i + 1, "pctr": 0.1, "bid": 2.0, "ecpm": 0.2} for i, ad in enumerate(ads)]
        fields += ["answer", json.dumps({"request_id": request_id, "ads": shown})]
    return fields


def shadow_json(
    request_id: str, ads: Sequence[object], pctr: Sequence[float | None], *, user: str = "ann", bundle: str = "b2"
) -> str:
    """What the shadow gave the ads of an answer, as service/served_log.py writes it."""
    said = {"format": 1, "request_id": request_id, "user_id": user, "bundle_id": bundle}
    return json.dumps(said | {"ads": ads, "pctr": pctr})


def event(kind: str, request_id: str, ad: object, user: object = "ann", **given: Any) -> dict[str, Any]:
    return {"user_id": user, "kind": kind, "ad_id": ad, "request_id": request_id} | given


def raw_ids(out: Path, stream: str) -> list[str]:
    """The ids of all entries on disk, in the order of files."""
    from outcomes.segments import segments

    return [line["id"] for segment in segments(out, stream) for line in segment.lines()]
