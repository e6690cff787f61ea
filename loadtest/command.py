"""`adrank loadtest`: load on a service, held against what it promises. Exit code 0: it holds, 1: not, 3: no verdict."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loadtest.disturbances import ab, redis_loss, swap
from loadtest.footprint import footprint
from loadtest.generators import Generators
from loadtest.report import page
from loadtest.result import Result
from loadtest.runner import Runner
from loadtest.scenarios import SCENARIOS, Found, Test
from loadtest.served import Served, serve
from loadtest.slo import EXIT_CODES, Slo, SloError, read_slo, table
from loadtest.store import Store
from loadtest.traffic import Mix, TrafficError, make_requests, read_requests, write_requests
from loadtest.world import Service, control_of, give_histories, look

SLO = Path(__file__).parent / "slo.yaml"
MIX = Path(__file__).parent / "mix.json"
BUNDLE = Path("artifacts/bundles/demo")
BY_CHANGES = {"swap": swap, "ab": ab}
KNOWN = sorted([*SCENARIOS, *BY_CHANGES, "redis-loss"])
LEAST_S = {"soak": 6.0, "spike": 10.0, "flash": 10.0, "redis-loss": 18.0}
"""So that each part of them that is judged has a whole second."""
POOL = 20_000
"""Requests that are made; longer tests send them again."""


def main(argv: list[str]) -> int:
    """Run a load test. 2 when it could not be run."""
    arguments = _parser().parse_args(argv)
    try:
        slo = read_slo(arguments.slo)
        if arguments.rate is not None:
            slo = slo.model_copy(update={"rate": arguments.rate})
        mix = Mix.model_validate(json.loads(arguments.mix.read_text(encoding="utf-8")))
        result = _run(arguments, slo, mix)
    except (SloError, TrafficError, json.JSONDecodeError) as error:
        print(f"adrank loadtest: {error}", file=sys.stderr)
        return 2
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        print(f"adrank loadtest: {arguments.mix}: {wrong}", file=sys.stderr)
        return 2
    print(said(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result.summary(), indent=1) + "\n", encoding="utf-8")
    if arguments.report is not None:
        arguments.report.write_text(page(result), encoding="utf-8")
    return EXIT_CODES[result.verdict]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adrank loadtest",
        description="Load on a service, held against what it promises. Exit code 0: it holds, 1: it does not, 3: the "
        "load generator did not keep up, so nothing is said, 2: the test could not be run.",
    )
    parser.add_argument("--slo", type=Path, default=SLO, metavar="FILE", help="what is promised [loadtest/slo.yaml]")
    parser.add_argument("--url", help="a running service; without it one is started on this machine")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="what to serve [%(default)s]")
    parser.add_argument(
        "--serve", action="append", default=[], metavar="OPTION", help="an option of adrank serve, such as --workers=2"
    )
    parser.add_argument("--scenario", choices=KNOWN, default="capacity", help="[%(default)s]")
    parser.add_argument("--quick", action="store_true", help="short stretches: less than 5 minutes in all")
    parser.add_argument("--rate", type=float, help="requests a second, instead of the promise's")
    parser.add_argument("--seconds", type=float, help="of the main stretch [60; 30 with --quick]")
    parser.add_argument("--peak", type=float, default=3.0, help="times the rate, in spike and flash [%(default)g]")
    parser.add_argument("--processes", type=int, default=1, help="that generate the load [%(default)s]")
    parser.add_argument("--requests", type=Path, metavar="FILE", help="send these, one JSON line each, in turn")
    parser.add_argument(
        "--mix", type=Path, default=MIX, metavar="FILE", help="what the traffic is made of [loadtest/mix.json]"
    )
    parser.add_argument("--give-histories", action="store_true", help="with --url: send events for the visitors first")
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE", help="with the service's key [the variable ADRANK_API_KEY]"
    )
    parser.add_argument(
        "--admin-key-file", type=Path, metavar="FILE", help="with its key of administration [ADRANK_ADMIN_KEY]"
    )
    parser.add_argument("--other", metavar="ID", help="a second bundle, beside the first: for swap and ab")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="of one request [%(default)g]")
    parser.add_argument("--seed", type=int, default=1, help="[%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write an HTML page that needs no network")
    return parser


def _run(arguments: argparse.Namespace, slo: Slo, mix: Mix) -> Result:
    seconds = arguments.seconds or (30.0 if arguments.quick else 60.0)
    if arguments.scenario in BY_CHANGES and arguments.other is None:
        raise SloError(f"--scenario {arguments.scenario} needs --other, the id of a second bundle")
    if arguments.scenario == "redis-loss" and arguments.url is not None:
        raise SloError("--scenario redis-loss takes Redis away: it needs a service of its own, without --url")
    if seconds < (least := LEAST_S.get(arguments.scenario, 1.0)):
        raise SloError(f"--seconds {seconds:g}: --scenario {arguments.scenario} needs {least:g} at least")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adrank-load-")))
        ours, theirs = _cores() if arguments.url is None else (None, None)
        headers = _bearer(arguments.key_file, "ADRANK_API_KEY")
        url, example, store, pid = arguments.url, {}, None, None
        if url is None:
            options = list(arguments.serve)
            if arguments.scenario == "redis-loss":
                store = Store(folder)
                stack.callback(store.kill)
                options += ["--redis-url", store.url]
            served: Served = stack.enter_context(serve(arguments.bundle, options, theirs))
            url, example, pid = served.url, served.example, served.pid
        service = Service(url, headers)
        stack.callback(service.close)
        mix = _with_values(mix, example)
        requests = folder / "requests.jsonl"
        if arguments.requests is not None:
            read = read_requests(arguments.requests, typed=True)
        else:
            users = [f"load-{i}" for i in range(mix.users)]
            world = look(service, mix, users, arguments.seed)
            if arguments.url is None or arguments.give_histories:
                give_histories(service, world, mix, arguments.seed)
            read = make_requests(world, mix, _pool(arguments, slo), arguments.seed)
        write_requests(read, requests)
        generators = stack.enter_context(Generators(arguments.processes, ours))
        runner = Runner(
            generators=generators,
            url=url,
            requests=requests,
            headers=headers,
            seed=arguments.seed,
            timeout_s=arguments.timeout,
            show=sys.stderr.isatty(),
        )
        short = arguments.quick or seconds < 30
        test = Test(
            runner=runner,
            service=service,
            slo=slo,
            seconds=seconds,
            warm_up_s=min(2.0, seconds / 5),
            step_s=min(8.0 if short else 20.0, seconds),
            peak=arguments.peak,
        )
        found = _found(arguments, test, store)
        control, processes = control_of(service), service.bundles().state.processes
        return Result(
            scenario=arguments.scenario,
            url=url,
            bundle=control.bundle_id,
            slo=slo,
            seed=arguments.seed,
            stretches=found.stretches,
            closed=found.closed,
            knee=found.knee,
            saturated=found.saturated,
            footprint=footprint(control.ladder, len(processes), pid),
        )


def _found(arguments: argparse.Namespace, test: Test, store: Store | None) -> Found:
    if store is not None:
        return redis_loss(test, store)
    if arguments.scenario in BY_CHANGES:
        return BY_CHANGES[arguments.scenario](
            test, arguments.other, _bearer(arguments.admin_key_file, "ADRANK_ADMIN_KEY")
        )
    return SCENARIOS[arguments.scenario](test)


def _bearer(file: Path | None, variable: str) -> dict[str, str]:
    """The header with the key in the file, else in the variable; of two with a comma between, the first."""
    said = os.environ.get(variable, "") if file is None else file.read_text(encoding="utf-8")
    return {"Authorization": f"Bearer {key}"} if (key := said.partition(",")[0].strip()) else {}


def _pool(arguments: argparse.Namespace, slo: Slo) -> int:
    """How many different requests to make."""
    if arguments.scenario == "capacity":
        return POOL
    return min(POOL, round(slo.rate * (arguments.seconds or POOL)) + 100)


def _cores() -> tuple[list[int] | None, list[int] | None]:
    """Where the generator and where a service of our own may run: the last core and the others, if there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[-1:], cores[:-1]) if len(cores) > 1 else (None, None)


def _with_values(mix: Mix, example: dict[str, Any]) -> Mix:
    """The example's context values are among those that are sent."""
    context = {name: list(values) for name, values in mix.context.items()}
    for name, value in example.get("context", {}).items():
        if value not in (values := context.setdefault(name, [])):
            values.append(value)
    return mix.model_copy(update={"context": context})


def said(result: Result) -> str:
    """The result as text."""
    lines = [f"{result.scenario} of bundle {result.bundle} at {result.slo.rate:g} requests/s"]
    for each in result.stretches:
        if each.judged is not None:
            lines += ["", each.name, table(each.judged)]
        else:
            lines += ["", f"{each.name}: p99 {each.outcome.latency.percentile(99):.1f} ms, not judged"]
    if result.closed is not None:
        main = result.stretches[0].outcome
        lines += [
            "",
            f"p99 from the intended start {main.latency.percentile(99):.1f} ms; as a closed loop of clients that wait "
            f"for their answers sees it {result.closed.uncorrected.percentile(99):.1f} ms",
        ]
    for name, latency in result.stretches[0].outcome.bundles.items():
        p50, p99 = latency.percentile(50), latency.percentile(99)
        lines.append(f"bundle {name}: {latency.count} answers, p50 {p50:.1f}, p99 {p99:.1f} ms")
    if result.knee is not None:
        lines += ["", "  requests/s   answered      p50      p95      p99   errors degraded"]
        for step in result.knee.steps:
            latency = step.outcome.latency
            lines.append(
                f"{step.rate:>12.0f}{step.outcome.achieved_rate:>11.0f}{latency.percentile(50):>9.1f}"
                f"{latency.percentile(95):>9.1f}{latency.percentile(99):>9.1f}{step.outcome.error_rate:>9.2%}"
                f"{step.outcome.degraded_rate:>9.2%}   {step.judged.verdict}"
            )
        lines.append(result.knee.text())
    return "\n".join([*lines, *result.notes, "", f"verdict: {result.verdict}"])
