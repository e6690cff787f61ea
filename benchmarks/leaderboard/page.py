"""Figures -> a Markdown table, and its place in docs/models.md."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from models.intervals import METRICS

OPEN, CLOSE = "<!-- results -->", "<!-- /results -->"
TITLES = {"kuairand": "KuaiRand", "marketplace": "Simulated marketplace"}
HEADS = ("AUC", "GAUC", "log loss", "calibration", "ΔAUC", "ΔGAUC", "Δlog loss", "parameters", "multiply-adds",
         "s an epoch", "ms of 500")  # fmt: skip
Figures = dict[str, float]


def ordered(figures: Figures, dataset: str) -> list[str]:
    """The models in the figures, by falling AUC."""
    found = re.compile(rf"{re.escape(dataset)}\.([^.]+)\.auc")
    models = [match[1] for key in figures if (match := found.fullmatch(key))]
    return sorted(models, key=lambda model: -figures[f"{dataset}.{model}.auc"])


def table(figures: Figures, dataset: str) -> list[str]:
    """One row a model, by falling AUC. What a model does not have is a dash."""
    rows = [["model", *HEADS]]
    for model in ordered(figures, dataset):
        own = {key.removeprefix(f"{dataset}.{model}."): value for key, value in figures.items()}
        rows.append(
            [
                model,
                *(_mean(own, metric) for metric in (*METRICS, "calibration")),
                *(_difference(own, metric) for metric in METRICS),
                _number(own, "parameters", ",.0f"),
                _number(own, "multiply_adds", ",.0f"),
                _number(own, "epoch_s", ".0f" if own.get("epoch_s", 0) >= 10 else ".1f"),
                _number(own, "ms_500", ".2f"),
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    head, *body = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return [head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body]


def section(figures: Figures, dataset: str, reference: str, replicates: int, where: dict[str, str]) -> list[str]:
    """What stands in the page of one data set: how it was measured, the table, the pictures."""
    seeds = int(figures[f"{dataset}.seeds"])
    means = f"Means of {seeds} seeds ± their standard deviation" if seeds > 1 else "One seed"
    how = (
        f"`adrank leaderboard --dataset {dataset} --data DIR`, on {int(figures[f'{dataset}.rows']):,} impressions of "
        f"{int(figures[f'{dataset}.users']):,} users: the test split, which chose nothing. {means}. Differences are "
        f"against `{reference}`, of the mean over seeds of every seed's own figure, with paired 95 % intervals from "
        f"{replicates:,} draws of users (`models/intervals.py`): they say what other users would change; what other "
        "seeds would, the deviations say. A dash: the model has no such figure. Multiply-adds are those of one "
        "candidate, seconds those of training without evaluation. Every network is timed as fine-ranker, two towers "
        "too: 500 ads for each of 8 requests of the test split, in ONNX Runtime on one thread, networks taking turns."
    )
    lines = [f"### {TITLES[dataset]}", "", *textwrap.wrap(how, 132)]
    if (best := figures.get(f"{dataset}.best_auc")) is not None:
        lines.append(f"The true click probability has AUC {best:.4f} here: no model can be better but by chance.")
    lines += ["", *textwrap.wrap("; ".join(f"{name}: {value}" for name, value in where.items()) + ".", 132), ""]
    lines += [*table(figures, dataset), ""]
    lines += [f"![Difference in GAUC, with its interval](pictures/{picture_names(dataset)[0]})", ""]
    return [*lines, f"![AUC against milliseconds](pictures/{picture_names(dataset)[1]})"]


def picture_names(dataset: str) -> tuple[str, str]:
    """Files of the two pictures: GAUC differences, AUC against time."""
    return f"leaderboard-{dataset}-gauc.svg", f"leaderboard-{dataset}-time.svg"


def write_section(page: Path, dataset: str, lines: Sequence[str]) -> None:
    """Put the lines between the page's marks for results, in the place of this data set; those of others stay.

    ValueError when the page has no such marks.
    """
    text = require_marks(page)
    before, _, rest = text.partition(OPEN)
    results, _, after = rest.partition(CLOSE)
    kept = dict(re.findall(r"<!-- results of (\w+) -->\n(.*?)\n<!-- /results of \1 -->", results, re.DOTALL))
    kept[dataset] = "\n".join(lines)
    blocks = (f"<!-- results of {name} -->\n{kept[name]}\n<!-- /results of {name} -->\n" for name in sorted(kept))
    temporary = page.with_suffix(".tmp")
    temporary.write_text(f"{before}{OPEN}\n{chr(10).join(blocks)}{CLOSE}{after}", encoding="utf-8")
    temporary.replace(page)


def require_marks(page: Path) -> str:
    """The page's text. ValueError unless results have a place in it."""
    text = page.read_text(encoding="utf-8")
    if not 0 <= text.find(OPEN) < text.find(CLOSE):
        raise ValueError(f"{page}: has no {OPEN} followed by {CLOSE}")
    return text


def _mean(own: Figures, metric: str) -> str:
    deviation = f" ± {own[f'{metric}_std']:.4f}" if f"{metric}_std" in own else ""
    return f"{own[metric]:.4f}{deviation}"


def _difference(own: Figures, metric: str) -> str:
    if f"d{metric}" not in own:
        return "–"
    value, low, high = (own[f"d{metric}{end}"] for end in ("", "_low", "_high"))
    return f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


def _number(own: Figures, key: str, form: str) -> str:
    return format(own[key], form) if key in own else "–"
