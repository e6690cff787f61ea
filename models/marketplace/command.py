"""`adrank marketplace`: write a simulated marketplace. The numbers printed are about simulated data."""

import argparse
import json
import sys
import time
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from models.marketplace.files import Written, write_marketplace
from models.marketplace.spec import MarketplaceSpec
from models.metrics import auc

OPTIONS = {
    "ads": "number of ads",
    "users": "number of users",
    "impressions": "number of impressions, rounded up to whole requests",
    "categories": "number of categories",
    "brands": "number of brands, each of one category",
    "advertisers": "number of advertisers",
    "candidates": "ads shown in one request",
    "history-length": "behaviours remembered of a user",
    "days": "length of the log in days",
    "images": "width of the vector of each ad's image, 0 for no images",
    "seed": "equal seeds and sizes give equal files",
}
SHARES = {
    "targeted": "share of the ads that may be shown in some scenes and regions only, up to 0.5",
    "launched": "share of the ads that are shown from some moment of the log on only, up to 0.5",
    "likes": "draw likes too, a second label: the probability that an average click is followed by one, up to 0.5",
}
EFFECTS = {
    "appeal": "in the true logit: spread of what is an ad's own, seen from its id and its image only",
    "style": "in the true logit: gained when behaviours look like the ad; needs images",
}


def main(argv: list[str]) -> int:
    """Run the command; 0 when written, 2 when refused."""
    arguments = parser().parse_args(argv)
    names = (option.replace("-", "_") for option in (*OPTIONS, *SHARES))
    given: dict[str, object] = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    effects = {name: value for name in EFFECTS if (value := getattr(arguments, name)) is not None}
    try:
        spec = MarketplaceSpec.model_validate(given | ({"effects": effects} if effects else {}))
    except ValidationError as error:
        for each in error.errors():
            place = [str(name).replace("_", "-") for name in each["loc"] if name != "effects"]
            name = f"--{'-'.join(place)}: " if place else ""
            print(f"adrank marketplace: {name}{each['msg']} (got {each['input']!r:.200})", file=sys.stderr)
        return 2
    started = time.perf_counter()
    try:
        with tqdm(
            total=spec.requests * spec.candidates, unit=" impressions", unit_scale=True, desc="simulating"
        ) as bar:
            written = write_marketplace(spec, arguments.out, bar.update)
    except OSError as error:
        print(f"adrank marketplace: {error}", file=sys.stderr)
        return 2
    figures = measure(spec, written) | {"marketplace.seconds": time.perf_counter() - started}
    best = figures.get("marketplace.best_auc.test")
    print(f"simulated marketplace in {arguments.out}: {spec.ads:,} ads, {spec.users:,} users, seed {spec.seed}")
    print(f"  {written.impressions:,} impressions in {written.requests:,} requests, {written.clicks:,} clicks")
    print(f"  click-through rate {figures['marketplace.ctr']:.4f}")
    print(f"  best possible AUC on the test part: {'it has no click' if best is None else f'{best:.4f}'}")
    print(f"  next: adrank train models/configs/marketplace-din.yaml --data {arguments.out}")
    return 0 if arguments.json is None else write_json(arguments.json, figures)


def write_json(path: Path, figures: dict[str, float]) -> int:
    """Write the figures; 0, or 1 when the file cannot be written."""
    try:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        print(f"adrank marketplace: the data is written, the figures are not: {error}", file=sys.stderr)
        return 2
    return 0


def measure(spec: MarketplaceSpec, written: Written) -> dict[str, float]:
    """The flat figures of a written marketplace; without a click in the test part there is no best AUC."""
    figures: dict[str, float] = {
        "marketplace.ads": spec.ads,
        "marketplace.users": spec.users,
        "marketplace.requests": written.requests,
        "marketplace.impressions": written.impressions,
        "marketplace.clicks": written.clicks,
        "marketplace.ctr": written.clicks / written.impressions,
    }
    if written.test_clicks.any():
        figures["marketplace.best_auc.test"] = auc(written.test_clicks, written.test_truth)
    return figures


def parser() -> argparse.ArgumentParser:
    """The command line."""
    defaults = MarketplaceSpec()
    made = argparse.ArgumentParser(
        prog="adrank marketplace",
        description="Write a simulated ad marketplace: ads, users and an impression log whose true click probability "
        "is known. The data is simulated, not measured.",
    )
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make; must not exist")
    for option, what in OPTIONS.items():
        value = getattr(defaults, option.replace("-", "_"))
        made.add_argument(f"--{option}", type=int, metavar="N", help=f"{what} (default {value:,})")
    for share, what in SHARES.items():
        made.add_argument(f"--{share}", type=float, metavar="SHARE", help=f"{what} (default 0)")
    for effect, what in EFFECTS.items():
        value = getattr(defaults.effects, effect)
        made.add_argument(f"--{effect}", type=float, metavar="X", help=f"{what} (default {value:g})")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures as flat JSON")
    return made
