"""One partition: its users, with all their rows of the logs."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from models.data.dealing import part_path, partition_of
from models.data.layout import Layout
from models.data.partition import BEHAVIOURS, LOG


@dataclass(frozen=True, slots=True)
class Partition:
    """All that is known of some users."""

    people: pl.DataFrame
    """user, code (row number here), index (of the user among all users of the log; null when only the table has
    them), and the columns of the normalised user table. In the order of user."""
    log: pl.DataFrame
    """Normalised log with code, sorted by user, time and row."""
    behaviours: pl.DataFrame
    """Normalised behaviour log with code, sorted by user, time and row."""


def number_users(users: pl.DataFrame) -> pl.DataFrame:
    """user, index: the place of each user of the log in the order of their ids as text. `users` has a column value."""
    return (
        users.select(user="value")
        .sort(pl.col("user").cast(pl.String))
        .with_row_index("index")
        .cast({"index": pl.Int64})
    )


def open_partition(layout: Layout, numbered: pl.DataFrame, folder: Path, number: int, partitions: int) -> Partition:
    """Read partition `number` back from `folder`."""
    mine = partition_of("user", partitions) == number
    people = numbered.filter(mine)
    if layout.users is not None:
        people = people.join(layout.users.filter(mine), on="user", how="full", coalesce=True)
    people = people.sort("user").with_row_index("code").cast({"code": pl.Int64})
    codes = people.select("user", "code")
    return Partition(people, _read(folder, LOG, number, codes), _read(folder, BEHAVIOURS, number, codes))


def _read(folder: Path, name: str, number: int, codes: pl.DataFrame) -> pl.DataFrame:
    path = part_path(folder, name, number)
    if not path.exists():
        return pl.DataFrame()
    return pl.read_parquet(path).join(codes, on="user").sort("code", "time", "row")
