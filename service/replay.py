"""A new bundle beside the live one on recent requests: what each answers, and what it takes."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time

import numpy as np
import numpy.typing as npt

from bundle.golden import Common
from service.asks import ask_of
from service.budget import Budget
from service.cascade import Ask, Ranked, rank, score
from service.checks import check_rank
from service.comparison import binned, mean_shift, overlap, psi
from service.encode import known_rows, rows_of
from service.errors import InvalidRequestError
from service.loaded import LoadedBundle
from service.recent import Seen
from service.selection import Rows
from service.settings import Settings
from service.timing import RequestTiming

K = 10
"""Ads an answer is judged by."""
DEADLINE_MS = 60_000
"""Nothing is left out for lack of time: what is too slow is said by the times."""
TIMED = 64
"""Fewer requests are ranked again and again until both bundles ranked so many."""
MOST_S = 30.0
"""Requests after so long are left out: a bundle that takes seconds a request is refused with a number, not with a
time-out."""


@dataclass(slots=True)
class Found:
    """What the replay gave. Lists have an entry for each request that both bundles answered."""

    requests: int = 0
    refused: int = 0
    """Requests that the new bundle refuses and the live one does not."""
    refusal: str = ""
    """Why it refused the first of them."""
    overlaps: list[float] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)
    """pCTR that the live bundle gives the ads that it answers and the new one knows."""
    found: list[float] = field(default_factory=list)
    """pCTR that the new one gives the same ads."""
    live_answers: list[float] = field(default_factory=list)
    """pCTR of each bundle's own answers."""
    new_answers: list[float] = field(default_factory=list)
    live_ms: list[float] = field(default_factory=list)
    new_ms: list[float] = field(default_factory=list)

    @property
    def overlap(self) -> float:
        """Mean share of ads that both answers have; 1 without answers."""
        return float(np.mean(self.overlaps)) if self.overlaps else 1.0

    @property
    def shift(self) -> float:
        """See comparison.mean_shift."""
        return mean_shift(self.expected, self.found)

    @property
    def psi(self) -> float:
        """See comparison.psi; 0 where one of them has no answers."""
        there = self.live_answers and self.new_answers
        return psi(binned(self.live_answers), binned(self.new_answers)) if there else 0.0

    @property
    def latency(self) -> tuple[float, float]:
        """Medians, the new bundle's and the live one's."""
        return float(np.median(self.new_ms)), float(np.median(self.live_ms))


def replay(new: LoadedBundle, live: LoadedBundle, seen: Sequence[Seen], settings: Settings) -> Found:
    """Rank each request with both bundles, in turns, the first of them changing from request to request."""
    found = Found()
    clock = _clock(settings)
    pairs: list[tuple[Ask, Ask]] = []
    until = perf_counter() + MOST_S
    for each in seen:
        if perf_counter() > until:
            break
        if refusal(each, live, settings) is not None:
            continue  # it was sent when another bundle was live
        found.requests += 1
        if (why := refusal(each, new, settings)) is not None:
            found.refused += 1
            found.refusal = found.refusal or why
            continue
        asks = asked(new, each), asked(live, each)
        pairs.append(asks)
        _compare(found, new, live, *asks, clock)
    for i in _again(len(pairs), until):
        _timed(found, new, live, *pairs[i], clock, i % 2 == 0)
    return found


def asked(loaded: LoadedBundle, seen: Seen) -> Ask:
    """What the cascade is asked for a request, flags of ads aside: they are the same for both bundles."""
    ask, _ = ask_of(loaded, seen.request, seen.features, K, (), RequestTiming())
    return ask


def answer(loaded: LoadedBundle, ask: Ask) -> tuple[Ranked, RequestTiming]:
    """The best ads by the bundle's best fine-ranker."""
    timing = RequestTiming()
    return rank(loaded, ask, Budget(DEADLINE_MS), timing), timing


def _compare(
    found: Found, new: LoadedBundle, live: LoadedBundle, ask: Ask, live_ask: Ask, clock: Callable[[], float]
) -> None:
    one, other = _timed(found, new, live, ask, live_ask, clock, found.requests % 2 == 0)
    ours, theirs = (
        [each.bundle.ads.index.value_of(row) for row in ranked.rows.tolist()]
        for each, ranked in ((new, one), (live, other))
    )
    if not theirs:
        return
    found.overlaps.append(overlap(theirs, ours))
    found.new_answers += _finite(one.pctr)
    found.live_answers += _finite(other.pctr)
    rows = rows_of(new.bundle.ads.index, theirs)
    known = known_rows(rows)
    if known.any():
        pctr = _score(new, ask.common, rows[known])
        both = np.isfinite(pctr) & np.isfinite(other.pctr[known])
        found.expected += other.pctr[known][both].tolist()
        found.found += pctr[both].tolist()


def _timed(
    found: Found,
    new: LoadedBundle,
    live: LoadedBundle,
    ask: Ask,
    live_ask: Ask,
    clock: Callable[[], float],
    new_first: bool,
) -> tuple[Ranked, Ranked]:
    """Both answers, with their times noted."""
    turns = [(new, ask, found.new_ms), (live, live_ask, found.live_ms)]
    answers = []
    for loaded, question, times in turns if new_first else reversed(turns):
        begun = clock()
        ranked, _ = answer(loaded, question)
        times.append((clock() - begun) * 1e3)
        answers.append(ranked)
    one, other = answers if new_first else reversed(answers)
    return one, other


def _score(loaded: LoadedBundle, common: Common, rows: Rows) -> npt.NDArray[np.float64]:
    pctr, _ = score(loaded, common, rows, Budget(DEADLINE_MS), RequestTiming())
    return pctr


def _again(pairs: int, until: float) -> Iterator[int]:
    """Which requests are timed once more, so that a few of them give a median that means something."""
    for i in range(pairs, TIMED) if pairs else ():
        if perf_counter() > until:
            return
        yield i % pairs


def refusal(seen: Seen, loaded: LoadedBundle, settings: Settings) -> str | None:
    """Why the service would refuse the request if the bundle was live; None: it would not."""
    try:
        check_rank(seen.request, loaded.bundle, settings)
    except InvalidRequestError as error:
        return str(error)
    return None


def _finite(values: npt.NDArray[np.float64]) -> list[float]:
    found: list[float] = values[np.isfinite(values)].tolist()
    return found


def _clock(settings: Settings) -> Callable[[], float]:
    """Time of a processor, which a busy machine does not lengthen; of a device there is only the time that passes."""
    return process_time if settings.provider == "cpu" and sys.platform != "win32" else perf_counter
