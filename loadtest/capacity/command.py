"""`adrank capacity`: what it takes to answer so many requests a second, and what that was reckoned from."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from loadtest.capacity.errors import CapacityError
from loadtest.capacity.measured import Measured, read_measured
from loadtest.capacity.rehearsal import Rehearsal, rehearse
from loadtest.capacity.sizing import Plan, Process, plan, process
from loadtest.capacity.tables import Assumption, assumptions, shown, text
from loadtest.capacity.wanted import Wanted

MEASURED = Path(__file__).parent / "measured.json"
"""The load test of the demo bundle that comes with the project."""


def main(argv: list[str]) -> int:
    """Print the plan. 2 when nothing can be said, with what is in the way."""
    arguments = vars(_parser().parse_args(argv))
    file, found, picture = arguments.pop("measured"), arguments.pop("json"), arguments.pop("picture")
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        wanted = Wanted.model_validate(given)
        measured = read_measured(file)
        one = process(measured, wanted)
        planned = plan(measured, wanted, one)
        rehearsal = rehearse(planned, one, wanted)
        if picture is not None:
            from loadtest.capacity.picture import draw  # noqa: PLC0415  # matplotlib takes a second to load

            draw(picture, measured, wanted, one, planned, rehearsal)
    except ValidationError as error:
        print(f"adrank capacity: {'; '.join(_wrong(each) for each in error.errors())}", file=sys.stderr)
        return 2
    except CapacityError as error:
        print(f"adrank capacity: {error}", file=sys.stderr)
        return 2
    said = assumptions(measured, wanted, set(given), one)
    print(text(measured, wanted, one, planned, rehearsal, said))
    if found is not None:
        whole = summary(measured, wanted, one, planned, rehearsal, said)
        found.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 0


def summary(
    measured: Measured, wanted: Wanted, one: Process, planned: Plan, rehearsal: Rehearsal, said: list[Assumption]
) -> dict[str, Any]:
    """Everything, for a file."""
    return {
        "format": 1,
        "measured": measured.source,
        "wanted": wanted.model_dump(),
        "process": {"busy_ms": one.costs.busy_s * 1e3, "most": one.most, "rates": one.rates},
        "plan": planned.summary(),
        "rehearsal": rehearsal.summary(),
        "assumptions": [each._asdict() for each in said],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adrank capacity",
        description="Replicas, cores, memory and Redis for a load, simulated from what a load test measured. "
        "Times and sizes have units: 20ms, 16GiB.",
    )
    for name, field in Wanted.model_fields.items():
        must = field.default is PydanticUndefined
        default = "" if must else f" [{'measured' if field.default is None else shown(name, field.default)}]"
        text = f"{field.description}{default}".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="VALUE", required=must, help=text)
    parser.add_argument(
        "--measured",
        type=Path,
        default=MEASURED,
        metavar="FILE",
        help="--json of an adrank loadtest [the demo bundle's]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it, as SVG")
    return parser


def _wrong(error: Any) -> str:
    """An error of pydantic's as the option, its value and the bound."""
    option = f"--{'-'.join(map(str, error['loc'])).replace('_', '-')} {error['input']}: " if error["loc"] else ""
    return option + str(error["msg"]).removeprefix("Value error, ")
