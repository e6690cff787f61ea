"""Prometheus itself, with our configuration, reads a running service; every query of the dashboard and of the rules
finds metrics that the service has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bundle.folder import open_bundle
from service.example import example_request
from service.metrics import Metrics
from tests.patience import PATIENCE_S, until
from tests.service.conftest import free_port
from tests.service.test_serve import served
from tests.service.world import make_world

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/adrank.json").read_text())
NAME = re.compile(r"\badrank_\w+")
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed (Debian: apt-get install prometheus)"
)


def queries() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    return found + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def names_there_are() -> set[str]:
    """Of every sample that the service's metrics can have."""
    found: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", Metrics().render().decode(), re.MULTILINE):
        found |= {name + ending for ending in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))}
    return found


def test_every_metric_that_is_asked_for_is_there() -> None:
    asked = {name for query in queries() for name in NAME.findall(query)}
    assert len(asked) > 10
    assert asked <= names_there_are()


def test_the_dashboard_has_the_funnel_the_arms_and_what_was_degraded() -> None:
    titles = " ".join(panel["title"] for panel in DASHBOARD["panels"])
    for word in ("funnel", "Arms", "Degraded", "Redis", "Fine-rank time"):
        assert word in titles
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    uid = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {uid["datasources"][0]["uid"]}


@needs_prometheus
def test_prometheus_takes_the_configuration() -> None:
    for action, name in (("config", "prometheus.yml"), ("rules", "rules.yml")):
        done = subprocess.run(
            ["promtool", "check", action, str(PROMETHEUS / name)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def pointed_at(address: str, folder: Path) -> Path:
    """Our configuration with its one target found by name replaced by `address`, and asked every second."""
    said: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    said["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (job,) = said["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [address]}]
    shutil.copy(PROMETHEUS / "rules.yml", folder)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(said))
    return folder / "prometheus.yml"


@contextmanager
def prometheus(configuration: Path, folder: Path) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def asked(url: str, query: str) -> list[Any]:
    answer = httpx.get(f"{url}/api/v1/query", timeout=PATIENCE_S, params={"query": query}).json()
    assert answer["status"] == "success", answer
    found: list[Any] = answer["data"]["result"]
    return found


@needs_prometheus
def test_prometheus_reads_our_metrics_back(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    body = example_request(open_bundle(folder))
    with (
        served(folder) as service,
        prometheus(pointed_at(service.url.removeprefix("http://"), tmp_path), tmp_path) as url,
    ):
        for _ in range(7):
            assert httpx.post(f"{service.url}/v1/rank", timeout=PATIENCE_S, json=body).status_code == 200

        def counted() -> float:
            try:
                found = asked(url, 'sum(adrank_requests_total{route="/v1/rank",status="200"})')
            except httpx.TransportError:  # it is starting
                return 0.0
            return float(found[0]["value"][1]) if found else 0.0

        until(lambda: counted() == 7, lambda: str(counted()), 0.2)
        for query in queries():
            asked(url, query.replace("$__rate_interval", "1m"))
        kept = asked(url, 'sum(adrank_stage_ads_total{stage="auction",side="out"})')
        assert float(kept[0]["value"][1]) == 7 * body["k"]
