"""`adrank replay`: rank a logged request again, from what it was answered from."""

import argparse
import json
import logging
import sys
from pathlib import Path

from service.errors import ServiceError
from service.request_replay import Replayed, ReplayError, find, replay


def main(argv: list[str]) -> int:
    """0: the same scores to the bit. 1: an input is missing or differs, or a score does. 2: no such request."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level="WARNING")
    try:
        line = find(arguments.log, arguments.request_id)
    except ReplayError as error:
        print(f"adrank replay: {error}", file=sys.stderr)
        return 2
    try:
        done = replay(line, arguments.log, arguments.bundles)
    except ServiceError as error:
        print(f"adrank replay: {arguments.request_id} differs: {error}", file=sys.stderr)
        return 1
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"same": done.same, "ads": done.ads, "logged": done.logged}) + "\n")
    print("\n".join(_told(line["head"]["request_id"], line["head"]["bundle_id"], done)))
    return 0 if done.same else 1


def _told(request_id: str, bundle_id: str, done: Replayed) -> list[str]:
    rung = f", rung {done.rung}" if done.rung is not None else ""
    if done.same:
        return [
            f"{request_id}: the same {len(done.ads)} ads and scores to the bit; {bundle_id}, {done.scored_by}{rung}"
        ]
    pairs = zip(done.ads, done.logged, strict=False)
    place = next((i for i, (now, then) in enumerate(pairs) if now != then), min(len(done.ads), len(done.logged)))
    now, then = (ads[place] if place < len(ads) else None for ads in (done.ads, done.logged))
    return [
        f"{request_id} differs at position {place + 1}: {then} then, {now} now; {bundle_id}, {done.scored_by}{rung}",
        *(done.differing or ["every known input is the same"]),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adrank replay",
        description="Rank a logged request again, from the request, the user's record, the flags and the bundle that "
        "it was answered from, through the same stages. The same scores to the bit, or the input that differs.",
    )
    parser.add_argument("request_id", help="of the answer")
    parser.add_argument("--log", type=Path, required=True, metavar="DIR", help="folder that `adrank outcomes` writes")
    parser.add_argument("--bundles", type=Path, required=True, metavar="DIR", help="folder with the bundles, by id")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write both lists of ads")
    return parser
