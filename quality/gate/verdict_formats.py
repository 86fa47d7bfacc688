"""A verdict for other readers: verdict.json, JUnit XML for a CI's test view, Markdown for a CI's job page."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

from elude.quality.gate.verdict import Check, Outcome, Verdict

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SIGNS: dict[Outcome, str] = {"pass": "✅ pass", "fail": "❌ fail", "warn": "⚠️ warn", "waived": "📝 waived"}


def verdict_json(verdict: Verdict) -> bytes:
    """The bytes of ``verdict.json``: UTF-8, sorted keys, no NaN."""
    return (
        json.dumps(verdict.to_json(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()


def junit_xml(verdict: Verdict) -> bytes:
    """One test case a check; waived checks are skipped, warnings pass and say so.

    A state other than judged is an error.
    """
    unjudged = verdict.state != "judged"
    suite = ElementTree.Element(
        "testsuite",
        name=_clean(f"elude gate: {verdict.policy_name}"),
        tests=str(len(verdict.checks) + unjudged),
        failures=str(len(verdict.failures)),
        errors=str(int(unjudged)),
        skipped=str(sum(check.outcome == "waived" for check in verdict.checks)),
    )
    if unjudged:
        case = ElementTree.SubElement(suite, "testcase", classname="elude.gate", name="judged")
        ElementTree.SubElement(case, "error", message=_clean(verdict.state))
    for check in verdict.checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"elude.gate.{check.dimension or 'integrity'}", name=_clean(check.name)
        )
        if check.outcome == "fail":
            ElementTree.SubElement(case, "failure", message=_clean(check.reason))
        elif check.outcome == "waived":
            ElementTree.SubElement(case, "skipped", message=_clean(check.reason))
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(f"{check.outcome}: {check.reason}")
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    content: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return content


def markdown(verdict: Verdict) -> str:
    """A short summary: what failed first, the passed checks folded away."""
    title = {"judged": "passed" if verdict.passed else "failed"}.get(verdict.state, verdict.state.replace("_", " "))
    counts = verdict.to_json()["counts"]
    lines = [
        f"## Gate {title}: {_cell(verdict.model)}",
        "",
        f"Policy **{_cell(verdict.policy_name)}** · artefact `{verdict.artefact_sha256[:12]}` · "
        + " · ".join(f"{count} {outcome}" for outcome, count in counts.items() if count),
        "",
    ]
    notable = [check for check in verdict.checks if check.outcome != "pass"]
    passed = [check for check in verdict.checks if check.outcome == "pass"]
    if notable:
        lines += [*_table(notable), ""]
    if passed:
        lines += ["<details><summary>Passed checks</summary>", "", *_table(passed), "", "</details>", ""]
    return "\n".join(lines)


def _table(checks: list[Check]) -> list[str]:
    rows = [
        (
            f"| {_SIGNS[c.outcome]} | `{_cell(c.name)}` | {_number(c.observed)} | {_number(c.threshold)} | "
            f"{_cell(c.reason)} |"
        )
        for c in checks
    ]
    return ["| outcome | check | observed | threshold | why |", "|---|---|---:|---:|---|", *rows]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)
