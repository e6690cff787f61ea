"""`adrank bundle show DIR` and `adrank bundle verify DIR`: what a bundle is, and whether it is whole."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bundle.certificate import Certificate
from bundle.errors import BundleError, ContractError
from bundle.folder import Bundle, open_bundle
from bundle.golden import check_golden, load_golden
from bundle.ladder import table
from bundle.manifest import GraphSpec, Manifest, read_manifest
from bundle.schema import FeatureSchema


def main(argv: list[str]) -> int:
    """Run the command; 0 when the bundle is as asked, 1 with one line on standard error when it is not."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (BundleError, OSError) as error:
        print(f"adrank bundle {arguments.action}: {error}", file=sys.stderr)
        return 1


def show(arguments: argparse.Namespace) -> int:
    """Print the manifest in words; nothing but the manifest is read."""
    manifest = read_manifest(arguments.folder)
    print("\n".join(describe(manifest)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures(manifest), indent=2) + "\n")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Check the checksums, the arrays, the encoder and the golden rows' file."""
    bundle = verified(arguments.folder)
    manifest = bundle.manifest
    print(
        f"{bundle.id} is whole: {len(manifest.files)} files, {_total(manifest):,} bytes, "
        f"{manifest.catalogue.ads:,} ads, {manifest.golden.requests} golden requests, {manifest.users:,} demo users"
    )
    return 0


def verified(folder: Path) -> Bundle:
    """The opened bundle, once all that can be checked without a graph runtime has been. BundleError otherwise."""
    bundle = open_bundle(folder)
    check_golden(folder, load_golden(folder), bundle.manifest)
    stages = bundle.manifest.stages
    graphs = stages.prerank.query, stages.finerank.graph, *(rung.graph for rung in stages.finerank.ladder)
    for name in (name for graph in graphs for name in (graph.file, graph.weights)):
        if name is not None and name not in bundle.manifest.files:
            raise ContractError(f"{folder}: the stages name {name!r}, which is not among the files")
    return bundle


def describe(manifest: Manifest) -> Iterator[str]:
    """The lines that `show` prints."""
    made, stages, catalogue = manifest.made, manifest.stages, manifest.catalogue
    yield f"bundle   {manifest.bundle_id} (format {manifest.format})"
    yield f"made     {made.time} from {made.data!r}, seed {made.seed}, commit {made.commit}"
    yield f"         {', '.join(f'{name} {version}' for name, version in sorted(made.versions.items()))}"
    bids = "with bids" if catalogue.has_bids else "without bids (every bid is 1)"
    yield f"ads      {catalogue.ads:,} {bids}, filters: {', '.join(catalogue.filters) or 'none'}"
    yield f"         targeted by context: {', '.join(catalogue.targeting) or 'nothing'}"
    yield f"users    {manifest.users:,} demo users"
    yield from _features(manifest.features)
    yield "stages"
    posted = ", ".join(stages.retrieval.posting_fields) or "none"
    yield f"  retrieval  keeps {stages.retrieval.keep:,}; {stages.retrieval.cells:,} cells, posting lists: {posted}"
    yield f"  qscore     keeps {stages.qscore.keep:,}; of {stages.qscore.label}"
    pre, fine = stages.prerank, stages.finerank
    vectors = f"{pre.dimension} numbers in {pre.vectors}"
    yield f"  prerank    keeps {pre.keep:,}; {pre.model} of {pre.label}, {vectors}, {_shown(pre.query)}"
    yield f"  finerank   keeps {fine.keep:,}; {fine.model} of {fine.label}, {_shown(fine.graph)}"
    if fine.certificate is not None:
        yield from fine.certificate.lines()
    yield from table(fine.rungs())
    for rung in fine.ladder:
        yield f"  {rung.name}: {rung.graph.file}, {_shown(rung.graph)}"
        if rung.certificate is not None:
            yield from rung.certificate.lines()
    yield "quality on the test split"
    names = sorted({name for metrics in manifest.quality.values() for name in metrics})
    widths = [max(12, len(name) + 2) for name in names]
    yield _row("", names, widths)
    for model, metrics in manifest.quality.items():
        yield _row(model, [f"{metrics[name]:.4f}" if name in metrics else "-" for name in names], widths)
    yield f"files    {len(manifest.files)}, {_total(manifest):,} bytes"
    for name, entry in sorted(manifest.files.items()):
        yield f"  {entry.bytes:>14,}  {name}"


def figures(manifest: Manifest) -> dict[str, float]:
    """The manifest's numbers with flat keys."""
    stages = manifest.stages
    return (
        {
            "bundle.ads": manifest.catalogue.ads,
            "bundle.users": manifest.users,
            "bundle.files": len(manifest.files),
            "bundle.bytes": _total(manifest),
            "bundle.retrieval.keep": stages.retrieval.keep,
            "bundle.qscore.keep": stages.qscore.keep,
            "bundle.prerank.keep": stages.prerank.keep,
            "bundle.finerank.keep": stages.finerank.keep,
        }
        | _proved(stages.finerank.certificate)
        | {
            f"bundle.ladder.{name}.{key}": value
            for name, _, worth in stages.finerank.rungs()
            for key, value in (
                ("p50_ms", worth.p50_ms),
                ("multiply_adds", worth.work()),
                ("bytes", worth.bytes),
                *worth.quality.items(),
            )
        }
        | {
            f"bundle.quality.{model}.{name}": value
            for model, metrics in manifest.quality.items()
            for name, value in metrics.items()
        }
    )


def _proved(certificate: Certificate | None) -> dict[str, float]:
    """A certificate's numbers."""
    found = {} if certificate is None else certificate.figures()
    return {f"bundle.finerank.certificate.{name}": value for name, value in found.items()}


def _features(schema: FeatureSchema) -> Iterator[str]:
    yield f"features (user key {schema.user_key!r}, ad key {schema.ad_key!r}, {schema.key_type})"
    for name, side in (("user", schema.user), ("context", schema.context), ("ad", schema.ad)):
        fields = [f"{f.name} ({f.kind}{f', {f.size:,} ids' if f.size else ''})" for f in side.fields]
        yield f"  {name:<8} {', '.join(fields) or 'none'}"
    for history in schema.histories:
        what = "ads" if history.of_ads else "events"
        yield (
            f"  history  {history.name}: the last {history.max_length} {what} by {', '.join(history.fields)}, "
            f"appended by {', '.join(history.events)}"
        )


def _shown(graph: GraphSpec) -> str:
    """What a graph is stored and computed in, and how far that is from fp32."""
    precision = graph.precision
    dense = f"{precision.dense} products" + (f" ({count})" if (count := len(precision.int8_nodes)) else "")
    off = f", pCTR off by {precision.deviation.pctr_share:.2%}" if precision.deviation else ""
    own = (
        f" ({len(precision.given)} of them {'/'.join(sorted(set(precision.given.values())))})"
        if precision.given
        else ""
    )
    return f"{precision.tables} tables{own}, {dense}{off}"


def _row(name: str, cells: list[str], widths: list[int]) -> str:
    return f"  {name:<12}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _total(manifest: Manifest) -> int:
    return sum(entry.bytes for entry in manifest.files.values())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="adrank bundle", description="Show or verify a bundle.")
    actions = made.add_subparsers(dest="action", required=True, metavar="show|verify")
    showing = actions.add_parser("show", help="what the bundle is", description="Print what a bundle's manifest says.")
    showing.add_argument("folder", type=Path, metavar="DIR", help="the bundle's folder")
    showing.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as flat JSON")
    showing.set_defaults(run=show)
    checking = actions.add_parser(
        "verify",
        help="whether the bundle is whole",
        description="Check a bundle's checksums, arrays, encoder and golden rows' file. Exit code 1 says what is "
        "wrong. The graphs themselves are replayed when a service loads the bundle.",
    )
    checking.add_argument("folder", type=Path, metavar="DIR", help="the bundle's folder")
    checking.set_defaults(run=verify)
    return made
