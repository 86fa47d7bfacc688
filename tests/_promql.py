"""What the dashboard and the alerts ask Prometheus for: expressions, and the metrics and labels in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import promql_parser
import yaml

FOLDER = Path(__file__).parent.parent / "docs/deploy"


def expressions() -> dict[str, tuple[str, str]]:
    """Name of a panel or alert → its expressions and description, one entry per expression."""
    board = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": (target["expr"], panel["description"])
        for panel in board["panels"]
        for target in panel["targets"]
    }
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        found |= {rule["alert"]: (rule["expr"], "") for rule in group["rules"]}
    return found


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Metric and labels of each selector; ValueError if Prometheus could not read the expression."""
    parsed = promql_parser.parse(expression.replace("$__rate_interval", "5m").replace("$model", ".*"))
    found: list[tuple[str, set[str]]] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
        return True

    promql_parser.walk(parsed, visit)
    return found
