"""`python -m benchmarks.slowed_service MS …`: `adrank serve …` whose fine-ranking takes MS milliseconds longer.

For load tests that must fail. The service itself has no way to be slowed.
"""

import sys
import time
from typing import Any

from service import cascade, serve


def main(argv: list[str]) -> int:
    """Serve, slowed."""
    seconds = float(argv[0]) / 1e3
    fast = cascade.rung_logits

    def slow(*arguments: Any) -> Any:
        time.sleep(seconds)
        return fast(*arguments)

    vars(cascade)["rung_logits"] = slow
    return serve.main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
