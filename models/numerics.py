"""How torch computes while a command runs, put back afterwards; and reading the numbers a command is given."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
