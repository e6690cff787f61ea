"""What a generator process notes of each answer, and what it makes of it when all are in.

While requests run it only appends numbers to arrays; histograms are made afterwards.
"""

import json
import sys
from array import array
from collections import Counter, defaultdict
from typing import Any

from client.timing import timings
from loadtest.histograms import WINDOW_DIGITS, Histogram
from loadtest.plan import Part, Window

OK = "200"
OUTSIDE = ("features", "queue", "total")
"""Parts of Server-Timing that are not work of the request's turn: it waits, or they are all of it."""


class Recorder:
    """One phase. Times are of perf_counter."""

    def __init__(self, begin: float, counted: float, end: float) -> None:
        """Arrivals due from `counted` on count, of a curve from `begin` to `end`."""
        self._begin, self._counted, self._end = begin, counted, end
        self._due, self._sent, self._ended = array("d"), array("d"), array("d")
        self._statuses: list[str] = []
        self._degraded = array("b")
        self._reasons: Counter[str] = Counter()
        self._bundles: list[str] = []
        self._stages: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self._looked_at = 0
        self._lost = self._unsent = 0

    @property
    def noted(self) -> int:
        """Requests with an answer, or an error."""
        return len(self._due)

    def note(self, due: float, sent: float, ended: float, status: int | str, timing: str, body: bytes) -> None:
        """One request that was answered, or ended with the error that `status` names. `timing`: its Server-Timing."""
        degraded, bundle = False, ""
        if status == 200:
            answer: dict[str, Any] = json.loads(body)
            reasons = answer.get("degraded") or []
            degraded, bundle = bool(reasons), str(answer.get("bundle_id", ""))
            if due >= self._counted:
                self._reasons.update(reasons)
                self._time(timing, (ended - sent) * 1e3)
        self._due.append(due)
        self._sent.append(sent)
        self._ended.append(ended)
        self._statuses.append(sys.intern(str(status)))
        self._degraded.append(degraded)
        self._bundles.append(sys.intern(bundle))

    def gave_up(self, requests: int) -> None:
        """So many were never sent."""
        self._unsent += requests

    def lost(self, requests: int) -> None:
        """So many never ended."""
        self._lost += requests

    def _time(self, timing: str, elapsed_ms: float) -> None:
        parts = timings(timing)
        if "total" in parts:
            turn = sum(ms for name, ms in parts.items() if name not in OUTSIDE)
            parts["network"] = max(elapsed_ms - parts["total"], 0.0)
            parts["work"] = max(parts["total"] - parts.get("queue", 0.0), 0.0)
            parts["turn"] = turn
        for name, ms in parts.items():
            self._stages[name].append(ms)

    def since_last(self) -> tuple[list[float], int, int]:
        """Of requests noted since this was last asked: sorted milliseconds of those with status 200, how many failed,
        how many were degraded."""
        new = range(self._looked_at, self.noted)
        self._looked_at = self.noted
        fine = sorted((self._ended[i] - self._due[i]) * 1e3 for i in new if self._statuses[i] == OK)
        return fine, len(new) - len(fine), sum(self._degraded[i] for i in new)

    def part(self, processor: float) -> Part:
        """All of it. `processor`: share of a core that was used."""
        counted = [i for i in range(self.noted) if self._due[i] >= self._counted]
        fine = [i for i in counted if self._statuses[i] == OK]
        statuses = Counter(self._statuses[i] for i in counted)
        if self._lost:
            statuses["no answer"] += self._lost
        bundles: dict[str, Histogram] = defaultdict(Histogram)
        for i in fine:
            bundles[self._bundles[i]].record((self._ended[i] - self._due[i]) * 1e3)
        return Part(
            offered=len(counted) + self._lost,
            answered=len(fine),
            completed_in_time=sum(
                self._counted <= self._ended[i] <= self._end for i in range(self.noted) if self._statuses[i] == OK
            ),
            statuses=dict(statuses),
            degraded=sum(self._degraded[i] for i in fine),
            reasons=dict(self._reasons),
            latency=Histogram.of((self._ended[i] - self._due[i]) * 1e3 for i in fine).encode(),
            uncorrected=Histogram.of((self._ended[i] - self._sent[i]) * 1e3 for i in fine).encode(),
            lag=Histogram.of((self._sent[i] - self._due[i]) * 1e3 for i in counted).encode(),
            stages={name: Histogram.of(ms).encode() for name, ms in self._stages.items()},
            bundles={name: each.encode() for name, each in bundles.items()},
            windows=self._windows(),
            processor=processor,
            unsent=self._unsent,
            seconds=self._end - self._counted,
        )

    def _windows(self) -> dict[int, Window]:
        seconds: dict[int, list[int]] = defaultdict(list)
        for i in range(self.noted):
            seconds[int(self._due[i] - self._begin)].append(i)
        return {second: self._window(those) for second, those in sorted(seconds.items())}

    def _window(self, those: list[int]) -> Window:
        fine = [i for i in those if self._statuses[i] == OK]
        return Window(
            offered=len(those),
            answered=len(fine),
            failed=len(those) - len(fine),
            degraded=sum(self._degraded[i] for i in fine),
            latency=Histogram.of(((self._ended[i] - self._due[i]) * 1e3 for i in fine), WINDOW_DIGITS).encode(),
        )
