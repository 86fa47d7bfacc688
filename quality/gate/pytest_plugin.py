"""The gate as a pytest plugin: ``pytest --elude-bundle build/bundle`` makes each check of the gate a test.

With ``--elude-policy``, ``--elude-baseline`` and ``--elude-waivers`` as in ``elude gate``. Without
``--elude-bundle`` it does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from elude.quality.gate.verdict import Check


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("elude")
    group.addoption("--elude-bundle", metavar="DIR", help="judge this bundle: each check of the gate becomes a test")
    group.addoption("--elude-policy", metavar="FILE", help="policy (TOML); by default the embedded model's")
    group.addoption("--elude-baseline", metavar="DIR", help="bundle of an earlier release to compare with")
    group.addoption("--elude-waivers", metavar="FILE", help="waivers (TOML)")


def pytest_collection(session: pytest.Session) -> None:
    """Refuse options that cannot do anything before any test runs."""
    given = session.config.getoption
    if not given("--elude-bundle") and any(given(f"--elude-{name}") for name in ("policy", "baseline", "waivers")):
        raise pytest.UsageError("--elude-policy, --elude-baseline and --elude-waivers need --elude-bundle")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    """Add the checks after everything else that selects tests by name: ``-k`` must not be able to leave out a
    failing one.
    """
    yield
    if bundle := config.getoption("--elude-bundle"):
        collector = Gate.from_parent(session, name="elude gate", path=Path(bundle))
        items.extend(collector.collect())


class Gate(pytest.Collector):
    """Judges the bundle."""

    def __init__(self, *, path: Path, **options: Any) -> None:
        super().__init__(path=path, **options)
        self.bundle = path

    def collect(self) -> list[pytest.Item]:
        """One item per check, and one that says whether it could be judged at all."""
        from elude.handlers.bundle.bundle import Bundle
        from elude.handlers.errors import EludeError
        from elude.quality.gate.judge import judge
        from elude.quality.gate.waivers import load_waivers
        from elude.quality.policies.embedded_defaults import policy_for

        given = self.config.getoption
        policy, baseline, waivers = (given(f"--elude-{name}") for name in ("policy", "baseline", "waivers"))
        try:
            bundle = Bundle.open(self.bundle) if self.bundle.exists() else None
            verdict = judge(
                bundle,
                policy_for(bundle, Path(policy) if policy else None),
                baseline=Bundle.open(baseline) if baseline else None,
                waivers=load_waivers(waivers) if waivers else (),
            )
        except EludeError as error:
            raise pytest.UsageError(str(error)) from error
        whole: list[pytest.Item] = [Judged.from_parent(self, name="passed", passed=verdict.passed, state=verdict.state)]
        return whole + [CheckItem.from_parent(self, name=check.name, check=check) for check in verdict.checks]


class Judged(pytest.Item):
    """Whether the verdict passed as a whole."""

    def __init__(self, *, passed: bool, state: str, **options: Any) -> None:
        super().__init__(**options)
        self.passed, self.state = passed, state

    def runtest(self) -> None:
        """Fail unless it passed."""
        if not self.passed:
            pytest.fail(f"the gate did not let this bundle pass ({self.state.replace('_', ' ')})", pytrace=False)


class CheckItem(pytest.Item):
    """One check of the gate; waived ones are skipped, warnings pass and are shown with -rA."""

    def __init__(self, *, check: Check, **options: Any) -> None:
        super().__init__(**options)
        self.check = check

    def runtest(self) -> None:
        """As the gate decided."""
        if self.check.outcome == "fail":
            pytest.fail(self.check.reason, pytrace=False)
        if self.check.outcome == "waived":
            pytest.skip(self.check.reason)
        self.add_report_section("call", "gate", f"{self.check.outcome}: {self.check.reason}")

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it comes from, for the report."""
        return self.path, None, f"gate: {self.name}"
