"""The plan as a picture: latency by rate, by number of replicas, and over the loss of a zone."""

from math import ceil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from loadtest.capacity.cluster import BALANCINGS, Balancing, Cluster, open_loop
from loadtest.capacity.knee import TOGETHER
from loadtest.capacity.measured import Measured
from loadtest.capacity.rehearsal import Rehearsal
from loadtest.capacity.sizing import Plan, Process
from loadtest.capacity.wanted import Wanted

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.78, 0.85, 0.9, 0.94, 0.97)
"""Of what a process can do at most."""
COLOURS = dict(zip(BALANCINGS, ("tab:blue", "tab:orange", "tab:green"), strict=True))


def draw(path: Path, measured: Measured, wanted: Wanted, one: Process, plan: Plan, rehearsal: Rehearsal) -> None:
    """Write it as SVG, the same bytes for the same plan."""
    mpl.rcParams["svg.hashsalt"] = "capacity"
    rates = np.sort([*(share * one.most for share in SHARES), plan.process_rate])
    curves = {each: _p99(one, each, rates, wanted) for each in BALANCINGS}
    figure = Figure(figsize=(12.8, 4.4), layout="constrained")
    by_rate, by_replicas, over_time = figure.subplots(1, 3)
    for balancing, p99 in curves.items():
        by_rate.plot(rates, p99, marker="o", markersize=3, label=balancing, color=COLOURS[balancing])
        replicas = [ceil(ceil(wanted.rps / rate) / wanted.workers) for rate in rates]
        by_replicas.plot(replicas, p99, marker="o", markersize=3, label=balancing, color=COLOURS[balancing])
    by_rate.axvline(plan.process_rate, color="grey", linestyle=":", label=f"planned at most, {plan.process_rate:.0f}/s")
    by_rate.set(xlabel="requests a second of one process", title="One process of many")
    zones = wanted.zones - wanted.zones_lost
    marks = [(plan.replicas, "planned", "-")]
    marks += [(plan.replicas_a_zone * zones, "a zone lost" if wanted.zones_lost == 1 else "zones lost", ":")]
    for at, name, style in marks if wanted.zones_lost else marks[:1]:
        by_replicas.axvline(at, color="grey", linestyle=style, label=f"{name}, {at}")
    by_replicas.set(
        xlabel=f"replicas of {wanted.workers} processes", xscale="log", title=f"{wanted.rps:,.0f} requests/s"
    )
    by_replicas.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    by_replicas.xaxis.set_major_formatter("{x:,.0f}")
    by_replicas.xaxis.set_minor_formatter(NullFormatter())
    for name, values in (("p99", rehearsal.p99_ms), ("p50", rehearsal.p50_ms)):
        over_time.plot(rehearsal.seconds, values, label=name)
    if wanted.zones_lost:
        over_time.axvline(rehearsal.lost_at_s, color="grey", linestyle=":", label=marks[1][1])
    over_time.set(xlabel="seconds", title=f"{wanted.rps:,.0f} requests/s on {plan.replicas:,} replicas")
    top = max(4 * wanted.p99, 1.1 * float(rehearsal.p99_ms.max()))
    for axes in (by_rate, by_replicas, over_time):
        _finish(axes, wanted.p99, top)
    by_replicas.legend(fontsize=8, loc="upper right")
    figure.suptitle(f"Bundle {measured.test.bundle}, simulated from a load test")
    figure.savefig(path, format="svg", metadata={"Date": None})


def _p99(one: Process, balancing: Balancing, rates: npt.NDArray[np.float64], wanted: Wanted) -> list[float]:
    """Milliseconds at each rate of a process."""
    many = 1 if balancing == "random" else TOGETHER
    cluster = Cluster(one.costs, one.rules, many, balancing)
    found = []
    for i, rate in enumerate(rates.tolist()):
        seconds = wanted.requests / 2 / (rate * many)
        run = open_loop(cluster, rate * many, seconds, wanted.seed + i, seconds * 0.05)
        found.append(float(np.nanpercentile(run.latency_s, 99)) * 1e3)
    return found


def _finish(axes: Axes, promised_ms: float, top: float) -> None:
    axes.axhline(promised_ms, color="tab:red", linestyle="--", linewidth=1, label=f"promised p99, {promised_ms:g} ms")
    axes.set_ylim(0, top)
    axes.set_ylabel("milliseconds (p99)" if axes.get_xlabel() != "seconds" else "milliseconds")
    axes.legend(fontsize=8, loc="upper left")
    axes.grid(visible=True, which="both", alpha=0.2)
