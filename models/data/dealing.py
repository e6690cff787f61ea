"""Rows dealt out by user to temporary Parquet files, so that all rows of a user come together."""

from pathlib import Path
from types import TracebackType

import polars as pl
import pyarrow as pa
import pyarrow.parquet


def partition_of(user: str, partitions: int) -> pl.Expr:
    """The partition of a user, Int32. The same throughout one run, which is all that is needed."""
    return (pl.col(user).hash(seed=0) % partitions).cast(pl.Int32).alias("partition")


class Dealer:
    """One open file a partition; every piece is appended to each as a row group of its own."""

    def __init__(self, folder: Path, name: str, partitions: int) -> None:
        self._folder = folder
        self._name = name
        self._partitions = partitions
        self._writers: dict[int, pa.parquet.ParquetWriter] = {}

    def __enter__(self) -> "Dealer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def deal(self, frame: pl.DataFrame) -> None:
        """Append the rows of `frame`, which has a column `user`, in their order."""
        pieces = frame.with_columns(partition_of("user", self._partitions)).partition_by(
            "partition", maintain_order=True, include_key=False, as_dict=True
        )
        for (partition,), piece in pieces.items():
            table = piece.to_arrow()
            writer = self._writers.get(partition)
            if writer is None:
                path = part_path(self._folder, self._name, partition)
                writer = self._writers[partition] = pa.parquet.ParquetWriter(path, table.schema, compression="lz4")
            writer.write_table(table)


def part_path(folder: Path, name: str, partition: int) -> Path:
    """The file of one partition; it exists only when it has rows."""
    return folder / f"{name}-{partition:05d}.parquet"
