"""One worker of the memory benchmark: loads a bundle as the service does, ranks, and stays until its input ends.

python -m benchmarks.memory_worker BUNDLE REQUESTS
"""

import sys
from itertools import cycle, islice
from pathlib import Path

from bundle.record import unpack
from service.budget import Budget
from service.cascade import Ask, rank
from service.encode import encode_common
from service.loading import load_bundle
from service.settings import Settings
from service.timing import RequestTiming

READY = "ready"


def main(folder: Path, requests: int) -> None:
    """Prints READY when the bundle is loaded and `requests` requests of its demo users were ranked."""
    loaded = load_bundle(folder, Settings(bundle=folder))
    bundle = loaded.bundle
    assert bundle.users is not None
    for user in islice(cycle(bundle.users.ids()), requests):
        record = bundle.users.get(user)
        assert record is not None
        common = encode_common(bundle, user, unpack(record), None, {})
        rank(loaded, Ask(common, k=10), Budget(60_000), RequestTiming())
    print(READY, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
