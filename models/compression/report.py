"""What a recipe did, as a table and as flat figures."""

from collections.abc import Sequence

from models.compression.pipeline import Compressed, Measured

COLUMNS = ("bytes", "table_bytes", "parameters", "multiply_adds", "valid.auc", "valid.gauc")


def table(steps: Sequence[Measured]) -> str:
    """One line a step; sizes absolute, quality with its change since the original. Below it what the step changed of
    the configuration, such as the fields that were dropped."""
    lines = ["  " + "step".ljust(20) + "".join(name.rjust(16) for name in COLUMNS)]
    first = steps[0].figures
    for each in steps:
        cells = []
        for name in COLUMNS:
            value = each.figures[name]
            if "." in name:
                cells.append(f"{value:.4f} {value - first[name]:+.4f}".rjust(16))
            else:
                cells.append(f"{value:,.0f}".rjust(16))
        lines.append("  " + each.what.ljust(20) + "".join(cells))
        lines += [f"      {change}" for change in each.changed]
    return "\n".join(lines)


def flat(found: Compressed) -> dict[str, float]:
    """Keys N.STEP.FIGURE of every step."""
    return {
        f"{number}.{each.what}.{name}": value
        for number, each in enumerate(found.record.steps)
        for name, value in each.figures.items()
    }
