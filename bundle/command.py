"""`adrank bundle`: what a bundle is, whether it is whole, who signed it, and where it is published."""

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
from bundle.signature import check_key, check_signature, make_key, read_signatures, sign
from bundle.store import publish


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
    if arguments.key:
        check_signature(arguments.folder, [check_key(key) for key in arguments.key])
    bundle = verified(arguments.folder)
    manifest = bundle.manifest
    print(
        f"{bundle.id} is whole: {len(manifest.files)} files, {_total(manifest):,} bytes, "
        f"{manifest.catalogue.ads:,} ads, {manifest.golden.requests} golden requests, {manifest.users:,} demo users"
    )
    signed = [each.key for each in read_signatures(arguments.folder)]
    how = "by a key that is accepted" if arguments.key else "not checked: no --key given"
    print(f"signed by {', '.join(signed)}; {how}" if signed else "not signed")
    return 0


def generate(arguments: argparse.Namespace) -> int:
    """Make a key pair."""
    public = make_key(arguments.file)
    print(f"private key  {arguments.file}: keep it where bundles are signed, and nowhere else", file=sys.stderr)
    print(public)
    return 0


def add_signature(arguments: argparse.Namespace) -> int:
    """Sign a bundle that is whole."""
    bundle = verified(arguments.folder)
    print(f"{bundle.id} is signed by {sign(arguments.folder, arguments.key)}")
    return 0


def upload(arguments: argparse.Namespace) -> int:
    """Copy a bundle to a store."""
    print(publish(arguments.folder, arguments.place))
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
    made = argparse.ArgumentParser(prog="adrank bundle", description="Show, verify, sign or publish a bundle.")
    actions = made.add_subparsers(dest="action", required=True, metavar="show|verify|keygen|sign|publish")
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
    checking.add_argument(
        "--key", action="append", metavar="KEY", help="public key, one of which must have signed it; may be repeated"
    )
    checking.set_defaults(run=verify)
    making = actions.add_parser(
        "keygen",
        help="make a key pair to sign bundles with",
        description="Write a new Ed25519 private key to FILE, readable by its owner alone, and print the public key, "
        "which services take as ADRANK_BUNDLE_KEYS. A file that exists is never overwritten.",
    )
    making.add_argument("file", type=Path, metavar="FILE", help="where the private key goes")
    making.set_defaults(run=generate)
    signing = actions.add_parser(
        "sign",
        help="sign a bundle",
        description="Verify a bundle, then write manifest.sig: an Ed25519 signature of the manifest, which holds the "
        "checksums of all other files. Signatures by other keys stay.",
    )
    signing.add_argument("folder", type=Path, metavar="DIR", help="the bundle's folder")
    signing.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key of adrank bundle keygen")
    signing.set_defaults(run=add_signature)
    publishing = actions.add_parser(
        "publish",
        help="copy a bundle to where services fetch it",
        description="Verify a bundle, then copy it to PLACE/BUNDLE_ID, the manifest last. One that is there is never "
        "overwritten.",
    )
    publishing.add_argument("folder", type=Path, metavar="DIR", help="the bundle's folder")
    publishing.add_argument("place", metavar="PLACE", help="folder, or URL such as s3://bucket/bundles")
    publishing.set_defaults(run=upload)
    return made
