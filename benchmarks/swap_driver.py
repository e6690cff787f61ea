"""The other process of `adrank bench swap`: changes the desired state at its times, and says when what was served.

With a process and cores it also lets the children of that process, which is the gate's, run on all of these cores.

One JSON line a swap: [asked, served], in seconds of the system's monotonic clock, which all processes share.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter

from control.reports import ProcessReport
from control.state import Change, Desired, Overrides
from service.file_state import FileState
from service.state_stores import StateStore

POLL_S = 0.02
GIVEN_UP_S = 60.0


async def want(store: StateStore, bundle_id: str) -> int:
    """Have all processes prepare and serve another bundle; the version that is wanted from now on."""
    before = (await store.look()).wanted
    assert before is not None
    version = before.version + 1
    change = Change(
        at=time.time(), who="adrank bench swap", why="to measure", action="serve", before=version - 1, after=version
    )
    await store.change(Desired(version=version, control=Overrides(bundle=bundle_id)), change)
    return version


def why_not(bundle_id: str, after_s: float, processes: Sequence[ProcessReport]) -> str:
    """What processes say of a bundle that is not served."""
    said = "; ".join(report.error for each in processes for report in each.bundles if report.error)
    return f"{bundle_id} is not served after {after_s:g} s: {said or 'no process says why'}"


async def swap(store: FileState, bundle_id: str, meanwhile: Callable[[], None]) -> tuple[float, float]:
    """Have another bundle served by all; when that was asked for, and when all said that they serve it. `meanwhile` is
    called again and again.

    TimeoutError when they do not within GIVEN_UP_S.
    """
    asked = perf_counter()
    version = await want(store, bundle_id)
    while not ((all_ := await store.processes()) and all(each.serving == version for each in all_)):
        if perf_counter() > asked + GIVEN_UP_S:
            raise TimeoutError(why_not(bundle_id, GIVEN_UP_S, all_))
        meanwhile()
        await asyncio.sleep(POLL_S)
    return asked, perf_counter()


def let_run(parent: int, cores: set[int]) -> None:
    """All children of a process may use these cores. OSError where the system does not list them."""
    tasks = Path(f"/proc/{parent}/task")
    if not (tasks / str(parent) / "children").exists():
        raise OSError(f"{tasks}: no lists of children, so the gate's process cannot be given another core")
    with suppress(OSError):  # of what has just ended
        for listed in tasks.glob("*/children"):
            for child in map(int, listed.read_text().split()):
                if os.sched_getaffinity(child) != cores:
                    os.sched_setaffinity(child, cores)


async def main(
    folder: Path, bundles: list[str], count: int, every_s: float, start: float, meanwhile: Callable[[], None]
) -> None:
    """`count` swaps to each of the bundles in turn, the first at `start`, one each `every_s` at most."""
    store = FileState(folder, 60.0)
    for i in range(count):
        if (wait := start + i * every_s - perf_counter()) > 0:
            await asyncio.sleep(wait)
        print(json.dumps(await swap(store, bundles[i % len(bundles)], meanwhile)), flush=True)


if __name__ == "__main__":
    folder_, bundles_, count_, every_, start_, *parent_ = sys.argv[1:]
    widened = partial(let_run, int(parent_[0]), set(map(int, parent_[1:]))) if parent_ else lambda: None
    asyncio.run(main(Path(folder_), bundles_.split(","), int(count_), float(every_), float(start_), widened))
