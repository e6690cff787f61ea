"""A hundred rankings at the same time, each with a deadline; then what the users saw and clicked.

python -m examples.rank_for_many --url http://127.0.0.1:8000
"""

import argparse
import asyncio
import sys
from collections import Counter

from client import AsyncClient, ClientError, EventIn, RankResponse


async def ask(client: AsyncClient, user: str) -> RankResponse | ClientError:
    """The answer, or why there is none: one user's trouble is no other's."""
    try:
        return await client.rank(user, context={"scene": "feed"}, k=3)
    except ClientError as error:
        return error


def seen(user: str, answer: RankResponse) -> list[EventIn]:
    """This user sees all ads, and clicks the first."""
    shown = [
        EventIn(user_id=user, kind="impression", ad_id=ad.ad_id, request_id=answer.request_id) for ad in answer.ads
    ]
    return shown + [each.model_copy(update={"kind": "click"}) for each in shown[:1]]


async def run(url: str, key: str | None, users: list[str], deadline_ms: float) -> int:
    """0 when somebody was answered, and the events were taken."""
    async with AsyncClient(url, key=key, deadline_ms=deadline_ms, connections=16) as client:
        found = await asyncio.gather(*(ask(client, user) for user in users))
        answers = {user: each for user, each in zip(users, found, strict=True) if isinstance(each, RankResponse)}
        for name, times in Counter(type(each).__name__ for each in found).items():
            print(f"{name}: {times}")
        print(f"in full: {sum(not answer.degraded for answer in answers.values())}")
        if not answers:
            return 1
        events = [event for user, answer in answers.items() for event in seen(user, answer)]
        try:
            taken = await client.events(events, deadline_ms=5000)
        except ClientError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"events: {taken.accepted} taken, {taken.ignored} of no history's kind")
    return 0


def main(argv: list[str]) -> int:
    """As run."""
    parser = argparse.ArgumentParser(prog="examples.rank_for_many", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service [%(default)s]")
    parser.add_argument("--key", help="its key, if it asks for one")
    parser.add_argument("--users", type=int, default=100, help="[%(default)s]")
    parser.add_argument("--deadline-ms", type=float, default=500, help="of one ranking [%(default)g]")
    asked = parser.parse_args(argv)
    users = [f"visitor-{i}" for i in range(asked.users)]
    return asyncio.run(run(asked.url, asked.key, users, asked.deadline_ms))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
