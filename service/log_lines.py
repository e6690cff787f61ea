"""What log lines look like: text, or one JSON object a line."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from service.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class Said:
    """A message with fields: a record's own message, `log.info(Said("stopping", connections=3))`.

    As text the fields follow the message, in JSON they are keys of the line. No field holds a key, a body, a profile, a
    history or a user's id.
    """

    def __init__(self, message: str, **fields: object) -> None:
        self.message, self.fields = message, fields

    def __str__(self) -> str:
        return " ".join([self.message, *(f"{name}={_text(value)}" for name, value in self.fields.items())])


class JsonLines(logging.Formatter):
    """`time` (ISO 8601, UTC), `level`, `logger`, `message`, `process`, then the fields, then `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, of ASCII alone."""
        said = record.msg if isinstance(record.msg, Said) else Said(record.getMessage())
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": said.message,
            "process": record.process,
            **said.fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(settings: Settings) -> None:
    """Lines of all loggers go to standard error, uvicorn's and warnings of Python too; once in each process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.captureWarnings(True)


class Allowance:
    """So many lines a second."""

    def __init__(self, per_second: int) -> None:
        """0: all."""
        self.per_second = per_second
        self._second, self._lines, self._left_out = -1, 0, 0

    def take(self) -> int | None:
        """None when this line is to be left out; otherwise how many were since the last one."""
        if (second := int(time.monotonic())) != self._second:
            self._second, self._lines = second, 0
        if self.per_second and self._lines >= self.per_second:
            self._left_out += 1
            return None
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{each}" for name, each in value.items()) or "none"
    return str(value)
