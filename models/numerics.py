"""How torch computes while a command runs, put back afterwards; what it computes on; and reading the numbers a command
is given."""

import argparse
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Use `threads` threads, and treat denormal floats as zero: they slow training 7-fold once Adam's moments decay."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def processor() -> str:
    """What this machine calls its processor."""
    listed = Path("/proc/cpuinfo")
    for line in listed.read_text().splitlines() if listed.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def at_least(bound: int) -> Callable[[str], int]:
    """What argparse reads an integer >= `bound` with."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if number < bound:
            raise argparse.ArgumentTypeError(f"{number} is too small, at least {bound} is needed")
        return number

    return read
