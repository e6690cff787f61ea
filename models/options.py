"""Places and seeds that a command is given, refused while the command line is read and not after hours of work."""

import argparse
from pathlib import Path

from models.numerics import at_least

LARGEST_SEED = 2**31 - 1
"""A run's seed times a million and its steps has to stay within the 64 bits of torch's seeds."""


def seed(text: str) -> int:
    """What argparse reads a seed with."""
    number = at_least(0)(text)
    if number > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{number} is too large, at most {LARGEST_SEED} is possible")
    return number


def folder_to_write(text: str) -> Path:
    """A folder that is there or can be made."""
    path = Path(text)
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise argparse.ArgumentTypeError(f"{place} is a file, a folder is needed")
            break
    return path


def file_to_write(text: str) -> Path:
    """A file in a folder that is there."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder, a file is needed")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: there is no folder {path.parent}")
    return path
