"""Alert rules and the dashboard; that its queries find what a run counts is tested with the jobs of
a cluster.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests import REPO

PROMETHEUS = REPO / "infra/prometheus"
DASHBOARD = REPO / "infra/grafana/dashboards/earthgptx.json"
METRICS = {"tiles", "blocks", "failures", "seconds", "bytes", "replicas"}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return subprocess.run(
        ["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )


def test_the_rules_fire_when_they_should() -> None:
    for arguments in (
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ):
        ended = promtool(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_rule_is_tried() -> None:
    rules = re.findall(r"alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text())
    tried = re.findall(
        r"alertname: (\w+)\s+exp_alerts:\s+- ", (PROMETHEUS / "alerts_test.yml").read_text()
    )
    assert sorted(set(tried)) == sorted(rules)


def test_the_dashboard_is_what_grafana_takes() -> None:
    document = json.loads(DASHBOARD.read_text())
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(document)))
    assert lost(document, read) == []


def lost(given: object, read: object, where: str = "") -> list[str]:
    """Places in a document that Grafana's types do not know."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [
            place
            for key, value in given.items()
            for place in (
                lost(value, read[key], f"{where}/{key}") if key in read else [f"{where}/{key}"]
            )
        ]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        pairs = zip(given, read, strict=True)
        return [place for at, pair in enumerate(pairs) for place in lost(*pair, f"{where}/{at}")]
    return [] if given == read else [where]


def test_a_wrong_dashboard_would_be_seen() -> None:
    document = json.loads(DASHBOARD.read_text())
    document["panels"][0]["titel"] = "x"
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(document)))
    assert lost(document, read) == ["/panels/0/titel"]


def test_every_metric_has_a_panel() -> None:
    assert (
        set(re.findall(r"ray_earthgptx_(\w+?)(?:_total)?[{\[ ]", DASHBOARD.read_text())) == METRICS
    )
    code = Path(REPO / "pipeline/engine/metrics.py").read_text()
    assert set(re.findall(r'_counter\("(\w+)"', code)) | {"replicas"} == METRICS
