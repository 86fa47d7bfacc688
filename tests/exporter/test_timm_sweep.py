"""timm's own list as the test: members of its modules are exported bit-identically and steered like a weight edit, or
refused with a reason. ``python -m benchmarks.families`` does the same for all modules (docs/benchmarks/families.md).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.families import check, members, rank

FAMILIES = (
    "byobnet",
    "convnext",
    "efficientnet",
    "mambaout",
    "maxxvit",
    "nfnet",
    "resnet",
    "vision_transformer",
    "vision_transformer_relpos",
)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_exported_and_steered(family: str, tmp_path: Path) -> None:
    row = check(family, members()[family], tmp_path)
    assert row.result == "exported", row.reason
    assert row.identical
    assert row.steered is not None
    assert row.effect is not None
    assert row.steered < 1e-5
    assert row.effect > 10 * row.steered  # else nothing was compared


def test_what_is_refused_is_refused_with_its_reason(tmp_path: Path) -> None:
    row = check("none", "no_such_model", tmp_path)
    assert row.result == "refused"
    assert "no_such_model" in row.reason


def test_the_smallest_member_is_chosen() -> None:
    assert rank("vit_tiny_patch16_224") < rank("vit_small_patch16_224") < rank("vit_huge_patch14_224")
