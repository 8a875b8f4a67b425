"""Alert rules and the dashboard: queries that Prometheus can read, about metrics and labels that there are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fanout.observability.metrics import IDLE, Metrics
from tests.support.documents import ROOT

DEPLOY = ROOT / "deploy"
ALERTS, DASHBOARD = DEPLOY / "alerts.yml", DEPLOY / "grafana-dashboard.json"
SCRAPED = {"job", "instance", "le"}
"""Labels that Prometheus adds, and that of buckets."""
NAME = re.compile(r"(?<![\w$.\"{])([a-z]\w*_\w+|up)(?=[\[{ )]|$)")
WORDS = {"histogram_quantile", "label_values"}
STEPS = Path(__file__).parent / "alerts.test.yml"


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must succeed; skip where there is none."""
    program = shutil.which("promtool") or ""
    if not program:
        reason = "NO PROMTOOL: alert rules and dashboard were not checked; Debian's package `prometheus` brings it"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def labels() -> Mapping[str, set[str]]:
    """The labels of every metric, by the names that Prometheus has for its series."""
    metrics = Metrics()
    found: dict[str, set[str]] = {}
    metrics.limiters = lambda: [("account", IDLE)]
    for metric in [*vars(metrics).values(), *metrics._read_gauges()]:
        if hasattr(metric, "buckets"):
            for end in ("_bucket", "_count", "_sum") if metric.buckets else ("",):
                found[metric.name + end] = {*metric.labels, *SCRAPED}
    process = metrics._render_text([]).decode()
    return found | dict.fromkeys(re.findall(r"^# TYPE (process_\w+)", process, re.MULTILINE), SCRAPED) | {"up": SCRAPED}


def list_alerts() -> list[tuple[str, str]]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    return [(rule["alert"], rule["expr"]) for rule in group["rules"]]


def list_panels() -> Iterator[tuple[str, str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))


@pytest.mark.parametrize(("title", "query"), [*list_alerts(), *list_panels()])
def test_every_query_is_about_metrics_and_labels_that_there_are(title: str, query: str, labels: Mapping[str, set[str]]) -> None:
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", group)}
    bare = re.sub(r"by \([^)]*\)", "", query)
    selected = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", bare))
    named = set(NAME.findall(re.sub(r"\{[^}]*\}", "{", bare))) - WORDS

    assert named, title
    assert named <= labels.keys(), title
    for name in named:
        assert grouped | selected <= labels[name], f"{title}: {name}"


def test_every_metric_that_operators_are_told_of_is_on_the_dashboard(labels: Mapping[str, set[str]]) -> None:
    shown = " ".join(query for _, query in list_panels())
    own = {re.sub("_(bucket|count|sum)$", "", name) for name in labels if not name.startswith(("process_", "up"))}
    assert {name for name in own if name not in shown} == set()


def test_prometheus_can_read_the_rules_the_configuration_and_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "5m").replace("$provider", ".*") for _, query in list_panels()]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    recorded = tmp_path / "panels.yml"
    recorded.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(DEPLOY / "prometheus.yml", tmp_path)

    assert f"{len(list_alerts())} rules found" in promtool("check", "rules", ALERTS)
    assert f"{len(rules)} rules found" in promtool("check", "rules", recorded)
    promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")


def test_every_alert_fires_where_it_should_and_nowhere_else(tmp_path: Path) -> None:
    """The series and the alerts that are expected of them are in alerts.test.yml."""
    steps: dict[str, Any] = yaml.safe_load(STEPS.read_text())
    tried = {case["alertname"] for test in steps["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]}
    (tmp_path / "alerts.test.yml").write_text(json.dumps(steps | {"rule_files": [str(ALERTS)]}))

    assert tried == {name for name, _ in list_alerts()}
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "alerts.test.yml")


def test_the_dashboards_panels_have_names_and_places_of_their_own() -> None:
    board = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}

    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(places) == len(panels)
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "provider"}
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels), "it can be imported anywhere"
