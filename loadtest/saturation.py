"""Whether the load generator itself kept up. Where it did not, it measured itself: nothing is said of the service."""

from loadtest.outcome import Outcome

LAG_SHARE = 0.1
"""Of the tightest p99 that is to be judged: so much may 99 % of the sends be late."""
LAG_LEAST_MS = 1.0
PROCESSOR = 0.9
"""Of a core. Above it the process has no time left, however late it is on average."""


def complaints(outcome: Outcome, p99_ms: float) -> list[str]:
    """Why the outcome is of no use for a p99 of `p99_ms`; empty when it is."""
    found = []
    allowed = max(LAG_LEAST_MS, LAG_SHARE * p99_ms)
    if (lag := outcome.lag.percentile(99)) > allowed:
        found.append(f"1 % of the requests were sent more than {lag:.1f} ms after they were due, {allowed:.1f} allowed")
    if outcome.processor > PROCESSOR:
        found.append(f"a generator process used {outcome.processor:.0%} of a core, {PROCESSOR:.0%} allowed")
    if outcome.unsent:
        found.append(f"{outcome.unsent} requests were so late that they were not sent at all")
    if not outcome.offered:
        found.append("no request was due in the time that counts")
    return found
