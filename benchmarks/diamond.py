"""MLR's toy problem (LS-PLM, arXiv 1704.05194): points in a square, clicked inside a diamond. A logistic regression
cannot tell them apart, a mixture of four can: every piece takes a side."""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.report import Report, Table
from bundle.schema import FeatureSchema, FieldSpec, Kind, Side
from models.data.batches import Batch
from models.metrics import auc
from models.networks.config import LrConfig, MlrConfig
from models.networks.mlr import Mlr
from models.networks.network import Network
from models.networks.registry import build

SCHEMA = FeatureSchema(
    user_key="user",
    ad_key="ad",
    ad=Side(fields=(FieldSpec(name="x", kind=Kind.NUMBER), FieldSpec(name="y", kind=Kind.NUMBER))),
)
NETWORKS: dict[str, LrConfig | MlrConfig] = {
    "lr": LrConfig(kind="lr"),
    "mlr": MlrConfig(kind="mlr", pieces=4, std=2.0),
}
COLOURS = ListedColormap(["#c6dbef", "#fdd0a2", "#c7e9c0", "#dadaeb"])
GRID = 200
"""Points of the picture along each side."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--out DIR`."""
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), metavar="DIR", help="[docs/pictures]")


def run(arguments: argparse.Namespace) -> Report:
    """Train both, measure them on other points, and draw the mixture."""
    steps = 100 if arguments.quick else 500
    train, test = impressions(points(2_000, seed=1)), impressions(points(20_000, seed=2))
    report, rows = Report("diamond"), []
    for name, config in NETWORKS.items():
        torch.manual_seed(0)
        network = fit(build(config, SCHEMA), train, steps)
        with torch.no_grad():
            logits, labels = network(test).numpy(), test.labels.numpy()
        right = float(((logits > 0) == (labels > 0)).mean())
        report.figures |= {f"diamond.{name}.accuracy": right, f"diamond.{name}.auc": auc(labels, logits)}
        rows.append((name.upper(), right, report.figures[f"diamond.{name}.auc"]))
        if isinstance(network, Mlr):
            arguments.out.mkdir(parents=True, exist_ok=True)
            draw(network, arguments.out / "mlr-diamond.svg")
    report.tables.append(Table(f"20,000 other points, {steps} steps", ("model", "accuracy", "AUC"), list(rows)))
    return report


def points(count: int, seed: int) -> Tensor:
    """Evenly spread over the square from -1 to 1, [count, 2]."""
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def impressions(of: Tensor) -> Batch:
    """Points [N, 2] as the candidates of one request, clicked inside |x| + |y| < 1."""
    count, none = len(of), torch.zeros(1, 0)
    zeros = torch.zeros(count, dtype=torch.int64)
    return Batch(
        user=none.long(),
        user_numbers=none,
        context=none.long(),
        context_numbers=none,
        histories={},
        ads=torch.zeros(count, 0, dtype=torch.int64),
        ad_numbers=of,
        request=zeros,
        labels=(of.abs().sum(dim=1) < 1).float(),
        positions=zeros,
        rows=np.zeros(count, dtype=np.int32),
        users=np.zeros(count, dtype=np.int64),
        truth=None,
    )


def fit(network: Network, batch: Batch, steps: int, learning_rate: float = 0.2) -> Network:
    """Train on all of the batch at every step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(network.loss(batch))
        optimizer.step()
        network.after_step(learning_rate)
    return network.eval()


def draw(mlr: Mlr, path: Path) -> None:
    """Which piece the gate chooses where, with the border of that piece's logistic regression; and p."""
    line = torch.linspace(-1, 1, GRID)
    grid = torch.cartesian_prod(line, line).flip(1)  # rows of y, columns of x
    with torch.no_grad():
        batch = impressions(grid)
        gate, expert = mlr.scores(batch)
        chosen = gate.argmax(dim=1).reshape(GRID, GRID).numpy()
        borders = [expert[:, m].reshape(GRID, GRID).numpy() for m in range(mlr.pieces)]
        p = torch.sigmoid(mlr(batch)).reshape(GRID, GRID).numpy()
    mpl.rcParams["svg.hashsalt"] = path.stem
    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    pieces, probability = figure.subplots(1, 2)
    pieces.imshow(chosen, origin="lower", extent=(-1, 1, -1, 1), cmap=COLOURS, vmin=0, vmax=3)
    for m, border in enumerate(borders):
        mine = np.where(chosen == m, border, np.nan)
        pieces.contour(line.numpy(), line.numpy(), mine, levels=[0.0], colors="black", linewidths=1.2)
    pieces.set_title("pieces, and their borders")
    shown = probability.imshow(p, origin="lower", extent=(-1, 1, -1, 1), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=probability, label="p(click)")
    probability.plot([1, 0, -1, 0, 1], [0, 1, 0, -1, 0], color="tab:orange", linewidth=1.2)
    probability.set_title("p(click), and the diamond")
    figure.savefig(path, metadata={"Date": None})
