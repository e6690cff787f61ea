"""`adrank simulate`: the simulated users ask a running service, see what it answers, and click by their true
probabilities. What each arm of an experiment is truly worth is known, so that a verdict can be held against it."""

import argparse
import asyncio
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from control.command_line import key_of
from models.marketplace.spec import MarketplaceSpec
from models.marketplace.visitors import Seen, Visitors, Visits

EVENTS_A_POST = 500
KEY_VARIABLE = "ADRANK_API_KEY"
CONTROL = "control"


class SimulationError(Exception):
    """The service did not answer as it should: one line."""


@dataclass(slots=True)
class Tally:
    """One arm of one experiment, or everybody."""

    requests: int = 0
    failed: int = 0
    users: set[int] = field(default_factory=set)
    impressions: int = 0
    clicks: int = 0
    true_clicks: float = 0.0
    """Sum of the true click probabilities of what was shown."""
    true_revenue: float = 0.0
    """Sum of true click probability × bid."""
    expected: float = 0.0
    """Sum of the pCTR that the service stated."""
    ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Flat figures; those without a denominator are left out."""
        found: dict[str, float] = {
            "requests": self.requests,
            "failed": self.failed,
            "users": len(self.users),
            "impressions": self.impressions,
            "clicks": self.clicks,
        }
        if self.impressions:
            found |= {
                "ctr": self.clicks / self.impressions,
                "true_ctr": self.true_clicks / self.impressions,
                "true_ecpm": 1000 * self.true_revenue / self.impressions,
            }
        if self.expected:
            found["true_over_expected"] = self.true_clicks / self.expected
        if self.ms:
            found |= {"p50_ms": float(np.percentile(self.ms, 50)), "p99_ms": float(np.percentile(self.ms, 99))}
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """How the users ask."""

    url: str
    k: int
    together: int
    """Users who come at about the same time."""
    concurrency: int
    rate: float | None
    """Requests a second; None: as fast as the service answers."""
    key: str | None = None
    """Of the setting api_key."""


class Simulation:
    """Rounds of visits against one service."""

    def __init__(self, visitors: Visitors, asked: Asked) -> None:
        self.visitors, self.asked = visitors, asked
        self.tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
        """(experiment, arm) -> what became of it; ("", "") is everybody."""
        self._next = 0.0

    async def run(self, requests: int, bar: "tqdm[Any]") -> None:
        """`requests` visits. SimulationError when no request of a round is answered, or events are not taken."""
        headers = {} if self.asked.key is None else {"Authorization": f"Bearer {self.asked.key}"}
        async with httpx.AsyncClient(base_url=self.asked.url, headers=headers, timeout=30.0) as client:
            done = 0
            while done < requests:
                size = min(self.asked.together, requests - done)
                await self._round(client, self.visitors.come(size))
                done += size
                bar.update(size)

    async def _round(self, client: httpx.AsyncClient, visits: Visits) -> None:
        places = asyncio.Semaphore(self.asked.concurrency)
        bodies = self.visitors.ask(visits, self.asked.k)
        answers = await asyncio.gather(*(self._ask(client, places, body) for body in bodies))
        if not any(isinstance(answer, dict) for answer, _ in answers):
            raise SimulationError(f"{self.asked.url}: none of {len(answers)} requests was answered: {answers[0][0]}")
        shown = [[ad["ad_id"] for ad in a["ads"]] if isinstance(a, dict) else [] for a, _ in answers]
        seen = self.visitors.see(visits, shown)
        events = []
        for i, (answer, ms) in enumerate(answers):
            self._count(int(visits.users[i]), answer, ms, seen, i)
            if isinstance(answer, dict):
                events += _events(bodies[i]["user_id"], answer, seen, i)
        for first in range(0, len(events), EVENTS_A_POST):
            await self._post(client, events[first : first + EVENTS_A_POST])

    async def _ask(
        self, client: httpx.AsyncClient, places: asyncio.Semaphore, body: dict[str, object]
    ) -> tuple[dict[str, Any] | str, float]:
        """The answer, or why there is none, and milliseconds."""
        async with places:
            if self.asked.rate is not None:
                now = time.perf_counter()
                self._next = max(self._next, now) + 1 / self.asked.rate
                await asyncio.sleep(max(0.0, self._next - 1 / self.asked.rate - now))
            start = time.perf_counter()
            try:
                answer = await client.post("/v1/rank", json=body)
            except httpx.HTTPError as error:
                return f"{type(error).__name__}: {error}", (time.perf_counter() - start) * 1e3
            ms = (time.perf_counter() - start) * 1e3
            return (answer.json() if answer.is_success else f"{answer.status_code}: {answer.text[:200]}"), ms

    async def _post(self, client: httpx.AsyncClient, events: list[dict[str, object]]) -> None:
        try:
            answer = await client.post("/v1/events", json={"events": events})
        except httpx.HTTPError as error:
            raise SimulationError(f"{self.asked.url}/v1/events: {type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise SimulationError(f"{self.asked.url}/v1/events: {answer.status_code}: {answer.text[:200]}")

    def _count(self, user: int, answer: dict[str, Any] | str, ms: float, seen: Seen, row: int) -> None:
        arms = [("", ""), *answer["arms"].items()] if isinstance(answer, dict) else [("", "")]
        for key in arms:
            tally = self.tallies[key]
            tally.requests += 1
            tally.users.add(user)
            if not isinstance(answer, dict):
                tally.failed += 1
                continue
            ads = answer["ads"]
            true = seen.true_ctr[row, : len(ads)].astype(np.float64)
            tally.impressions += len(ads)
            tally.clicks += int(seen.clicks[row].sum())
            tally.true_clicks += float(true.sum())
            tally.true_revenue += float(true @ np.array([ad["bid"] for ad in ads], dtype=np.float64))
            tally.expected += sum(ad["pctr"] or 0.0 for ad in ads)
            tally.ms.append(ms)


def figures(tallies: dict[tuple[str, str], Tally]) -> dict[str, float]:
    """simulate.all.NAME and simulate.EXPERIMENT.ARM.NAME; `true_lift` of each arm against its control, relative."""
    found: dict[str, float] = {}
    for (experiment, arm), tally in sorted(tallies.items()):
        own = tally.figures()
        control = tallies[experiment, CONTROL].figures() if (experiment, CONTROL) in tallies else {}
        if arm not in ("", CONTROL) and "true_ctr" in own and control.get("true_ctr"):
            own["true_lift"] = own["true_ctr"] / control["true_ctr"] - 1
        place = f"{experiment}.{arm}" if experiment else "all"
        found |= {f"simulate.{place}.{name}": value for name, value in own.items()}
    return found


def main(argv: list[str]) -> int:
    """0 when all visits were made; 1 when the service failed; 2 when the marketplace cannot be read."""
    arguments = parser().parse_args(argv)
    try:
        spec = MarketplaceSpec.model_validate_json((arguments.market / "marketplace.json").read_bytes())
    except ValidationError as error:
        print(f"adrank simulate: {arguments.market}/marketplace.json: {error}", file=sys.stderr)
        return 2
    asked = Asked(
        url=arguments.against.rstrip("/"),
        k=arguments.k,
        together=min(arguments.together, spec.users),
        concurrency=arguments.concurrency,
        rate=arguments.rate,
        key=key_of(arguments.key_file, KEY_VARIABLE),
    )
    simulation = Simulation(Visitors(spec, arguments.seed, arguments.drift), asked)
    try:
        with tqdm(total=arguments.requests, unit=" visits", desc="asking") as bar:
            asyncio.run(simulation.run(arguments.requests, bar))
    except (SimulationError, ValueError) as error:
        print(f"adrank simulate: {error}", file=sys.stderr)
        return 1
    found = figures(simulation.tallies)
    for name, value in found.items():
        print(f"{name} = {value:,.6g}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank simulate",
        description="Have the users of a simulated marketplace ask a running service, see its ads, and click by their "
        "true probabilities. Prints what each arm is truly worth.",
    )
    p.add_argument("--against", metavar="URL", default="http://127.0.0.1:8000", help="the service [%(default)s]")
    p.add_argument(
        "--market", type=Path, required=True, metavar="DIR", help="folder of `adrank marketplace` that it serves"
    )
    p.add_argument("--requests", type=int, metavar="N", default=10_000, help="visits [%(default)s]")
    p.add_argument("--k", type=int, metavar="N", default=10, help="ads shown in a visit [%(default)s]")
    p.add_argument(
        "--together", type=int, metavar="N", default=100, help="users who come at about the same time [%(default)s]"
    )
    p.add_argument("--concurrency", type=int, metavar="N", default=8, help="requests in flight [%(default)s]")
    p.add_argument("--rate", type=float, metavar="R", help="requests a second [as fast as the service answers]")
    p.add_argument("--key-file", metavar="FILE", help=f"file with the service's key [the variable {KEY_VARIABLE}]")
    p.add_argument("--seed", type=int, metavar="N", default=0, help="of who comes and who clicks [%(default)s]")
    p.add_argument(
        "--drift",
        type=amount,
        metavar="X",
        default=0.0,
        help="how far tastes turned since the log, 1 is all [%(default)g]",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return p


def amount(text: str) -> float:
    """What argparse reads a finite number >= 0 with."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no finite number from 0 on")
    return number


def _events(user: object, answer: dict[str, Any], seen: Seen, row: int) -> list[dict[str, object]]:
    """What the user did: an impression of each ad, then the clicks in the order of their places."""
    said = {"user_id": user, "request_id": answer["request_id"]}
    ids = [ad["ad_id"] for ad in answer["ads"]]
    shown = [{"kind": "impression", "ad_id": ad, **said} for ad in ids]
    clicked = [
        {"kind": "click", "ad_id": ad, **said} for ad, click in zip(ids, seen.clicks[row], strict=False) if click
    ]
    return shown + clicked
