"""The report of the check for people: rows for a terminal, and one page of HTML."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;width:100%}.no{color:#a00;font-weight:bold}"
    "td,th{border-bottom:1px solid #ccc;padding:.3em .6em;text-align:left;font-variant-numeric:tabular-nums}"
)
_COLUMNS = (
    "claim",
    "output",
    "inputs",
    "setting",
    "max_abs",
    "mean_abs",
    "p99_abs",
    "max_rel",
    "tolerance",
    "worst",
    "top1",
    "passed",
)


def rows(report: dict[str, Any]) -> list[dict[str, str]]:
    """Every comparison of ``Equivalence.to_json()``, one row each, in the order of the claims; numbers as short
    text, "–" for none.
    """
    claims = report["claims"]
    found = []
    for layer in claims["sums"]["layers"]:
        weights = {"claim": "sums", "output": (f"{layer['layer']}: {layer['weights']} weights and "
                                              "biases"), "inputs": "–", "setting": "file",
                   "max_abs": layer["largest"], "tolerance": 0.0, "passed": layer["mismatches"] == 0}  # fmt: skip
        found += [_row(weights), *(_row({"claim": "sums", **item}) for item in layer["activations"])]
    for claim in ("rewrite", "runtime"):
        found += [_row({"claim": claim, **item}) for item in claims[claim]["outputs"]]
    return found


def summary(report: dict[str, Any]) -> dict[str, str]:
    """The few lines that matter; "–" for the top-1 agreement of a model without classes."""
    numbers, rule = report["summary"], report["tolerance"]
    found = {"result": "equal" if report["passed"] else "NOT EQUAL"}
    found |= {f"max |Δ| {claim['claim']}": _text(numbers[name]) for name, claim in report["claims"].items()}
    found["top-1 agreement"] = "–" if numbers["top1"] is None else f"{100 * numbers['top1']:.4g} %"
    found["images"] = str(report["images"])
    found["tolerance"] = f"{rule['formula']}; {rule['dtype']}, roundoff {rule['roundoff']:.3g}, {rule['terms']} terms"
    if report["divergence"] is not None:
        off = report["divergence"]
        found["first off"] = (
            f"node {off['node']} ({off['op']}) of {off['module']}: {_text(off['max_abs'])}, allowed "
            f"{_text(off['tolerance'])}"
        )
    return found


def html(report: dict[str, Any], title: str) -> str:
    """One self-contained page."""
    lines = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in summary(report).items()
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in _COLUMNS)
    body = "".join(
        f"<tr{'' if row['passed'] == 'yes' else ' class=no'}>"
        + "".join(f"<td>{escape(row[name])}</td>" for name in _COLUMNS)
        + "</tr>"
        for row in rows(report)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1><table>{lines}</table><h2>Every "
        f"comparison</h2><table><tr>{head}</tr>{body}</table></html>\n"
    )


def _row(item: dict[str, Any]) -> dict[str, str]:
    worst = item.get("worst")
    shown = {name: _text(item.get(name)) for name in _COLUMNS if name != "worst"}
    return shown | {
        "worst": "–" if worst is None else f"image {worst['image']}, batch {worst['batch']}",
        "passed": "yes" if item["passed"] else "NO",
    }


def _text(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.3g}"
