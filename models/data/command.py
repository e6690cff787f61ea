"""`adrank prepare`: a raw click log -> request-grouped Parquet and vocabularies."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bundle.schema import FIRST_KNOWN
from models.data.prepare import prepare, prepared_folder
from models.data.prepared import SPLITS, PreparedData, open_prepared
from models.data.spec import DataError, read_spec

ROOT = Path("artifacts/data")


def main(argv: list[str]) -> int:
    """Run the sub-command; 0, or one line on stderr and 2 for what cannot be used or written, 130 when interrupted.

    Ctrl-C and SIGTERM leave nothing behind.
    """
    arguments = _parser().parse_args(argv)
    try:
        with terminable():
            data = _prepared(arguments)
    except (DataError, OSError) as error:
        print(f"adrank prepare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adrank prepare: interrupted", file=sys.stderr)
        return 130
    print(summary(data))
    return 0


def _prepared(arguments: argparse.Namespace) -> PreparedData:
    spec = read_spec(arguments.spec)
    out: Path = arguments.out or prepared_folder(spec, arguments.data, ROOT)
    if arguments.out is None and not arguments.force and (out / "schema.json").exists():
        print(f"{out} is there already, made from the same description and files")
        return open_prepared(out)
    return prepare(
        spec,
        arguments.data,
        out,
        partitions=arguments.partitions,
        progress=not arguments.quiet,
        force=arguments.force,
    )


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM ends the run as Ctrl-C does: temporary files go first."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def summary(data: PreparedData) -> str:
    """What was prepared, in a few lines."""
    lines = [f"{data.folder}: {data.prepared.users:,} users, {len(data.ads.index):,} ads"]
    for name in SPLITS:
        size = data.prepared.splits[name]
        rate = f"{size.clicks / size.impressions:.4f}" if size.impressions else "-"
        lines.append(
            f"  {name:5}  {size.requests:>12,} requests  {size.impressions:>12,} impressions  click rate {rate}"
            + "".join(f"  {label} {of_it / size.impressions:.4f}" for label, of_it in size.further.items() if of_it)
        )
    for name, missing in data.prepared.without_vector.items():
        size, width = data.vectors[name].shape
        lines.append(f"  {name}: vectors of {width} numbers; {missing:,} of {size - FIRST_KNOWN:,} values have none")
    sizes = ", ".join(f"{name} {vocabulary.size:,}" for name, vocabulary in data.vocabularies.items())
    return "\n".join([*lines, f"  ids: {sizes}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adrank prepare",
        description="Turn a raw click log into request-grouped Parquet, vocabularies and packed user features. "
        "The log is streamed: memory does not grow with its length.",
    )
    parser.add_argument(
        "spec", type=Path, metavar="SPEC.yaml", help="description of the dataset, see models/configs/data"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the source files")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder to write (default: {ROOT}/NAME-FINGERPRINT, reused when it is there)",
    )
    parser.add_argument(
        "--partitions",
        type=int,
        metavar="N",
        help="temporary files the users are dealt to (default: about a million rows each)",
    )
    parser.add_argument("--force", action="store_true", help="replace what stands at the output folder")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser
