"""Ask for a ranking, and say what came of it.

python -m examples.rank_ads --url http://127.0.0.1:8000
"""

import argparse
import sys

from client import Client, ClientError, Filter


def main(argv: list[str]) -> int:
    """0 when there is an answer."""
    parser = argparse.ArgumentParser(prog="examples.rank_ads", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service [%(default)s]")
    parser.add_argument("--key", help="its key, if it asks for one")
    parser.add_argument("--user", default="362437069", help="[%(default)s]")
    parser.add_argument("--deadline-ms", type=float, default=500, help="for everything [%(default)g]")
    asked = parser.parse_args(argv)
    with Client(asked.url, key=asked.key, deadline_ms=asked.deadline_ms) as client:
        try:
            answer = client.rank(
                asked.user,
                context={"scene": "feed", "region": "north"},
                k=5,
                filters={"category": Filter(none_of=[3])},
            )
        except ClientError as error:
            print(error, file=sys.stderr)
            return 1
    for ad in answer.ads:
        print(f"{ad.position}. ad {ad.ad_id}: pCTR {ad.pctr}, bid {ad.bid}, eCPM {ad.ecpm}")
    print(f"{answer.exchange.ms:.1f} ms, of which the service took {answer.exchange.timings.get('total', 0):.1f}")
    if answer.degraded:
        print(f"without {', '.join(answer.degraded)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
