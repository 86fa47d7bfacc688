"""What the check found: frozen, as JSON, and with the words for the first thing that failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from elude.handlers.bundle.output_kinds import OUTPUT_NAMES
from elude.handlers.errors import EquivalenceError

CLAIMS = {
    "sums": "(a) the sub-units sum to their unit",
    "rewrite": "(b) the rewritten torch model equals the original",
    "runtime": "(c) ONNX Runtime equals torch",
}
ONNX_CLAIMS = {
    "sums": CLAIMS["sums"],
    "rewrite": "(b) the rewritten file equals the given one",
    "runtime": "(c) steering equals an edit of the given file's weights",
}


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """With the text ``inf`` for infinities, which JSON has no number for."""
    return {key: "inf" if value == float("inf") else value for key, value in values.items()}


@dataclass(frozen=True)
class Comparison:
    """How far an output is from its reference, over all elements of all runs of one kind.

    Attributes:
        output: name of the output, e.g. ``logits``, ``logits, steered`` or ``blocks.5.mlp.fc2.sub_units``.
        inputs: ``real``, ``random`` or ``scaled``.
        setting: ``optimised``, ``not optimised`` or ``torch``.
        scale: largest absolute value of the reference.
        tolerance: largest absolute error allowed.
        max_abs, mean_abs, p99_abs: absolute errors; infinite where only one side is finite.
        max_rel, mean_rel, p99_rel: errors relative to the element, or to 1 % of ``scale`` where the element is smaller.
        worst: where the largest error is: image and size of the batch it was run in.
        top1: share of images with the same largest entry, for class scores.
    """

    output: str
    inputs: str
    setting: str
    scale: float
    tolerance: float
    max_abs: float
    mean_abs: float
    p99_abs: float
    max_rel: float
    mean_rel: float
    p99_rel: float
    worst: dict[str, int]
    top1: float | None = None

    @property
    def passed(self) -> bool:
        return self.max_abs <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; errors that are not finite become the text ``inf``."""
        return finite(asdict(self)) | {"passed": self.passed}


@dataclass(frozen=True)
class Sums:
    """Claim (a) for one layer.

    Attributes:
        layer: path of the module.
        weights: number of weights and biases of the layer.
        mismatches: how many of them the sub-units' values in the file do not add up to, bit for bit.
        largest: the largest such difference.
        activations: merged sub-units against units, both from the file.
    """

    layer: str
    weights: int
    mismatches: int
    largest: float
    activations: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        return self.mismatches == 0 and all(item.passed for item in self.activations)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"activations": [item.to_json() for item in self.activations], "passed": self.passed}


@dataclass(frozen=True)
class Divergence:
    """The first value that is off.

    Attributes:
        node: name of the node that makes it; ``op``: its operator.
        module: path of the torch module it belongs to.
        max_abs: its largest error.
        tolerance: what was allowed.
        checked: how many values before it were right.
    """

    node: str
    op: str
    module: str
    max_abs: float
    tolerance: float
    checked: int

    def __str__(self) -> str:
        return (
            f"first off at node {self.node} ({self.op}) of {self.module}, by {self.max_abs:.3g} "
            f"(allowed: {self.tolerance:.3g})"
        )


@dataclass(frozen=True)
class Equivalence:
    """The three claims.

    Attributes:
        sums: claim (a), one a layer.
        rewrite: claim (b).
        runtime: claim (c).
        rule: how the tolerances were derived, with its constants.
        images: number of real images compared.
        divergence: when a claim fails, the first value of the file's graph that is off, if one of the model's own is.
        claims: how the claims are worded: of a torch model, or of a file.
    """

    sums: tuple[Sums, ...]
    rewrite: tuple[Comparison, ...]
    runtime: tuple[Comparison, ...]
    rule: dict[str, Any]
    images: int
    divergence: Divergence | None = None
    claims: Mapping[str, str] = field(default_factory=lambda: CLAIMS)

    @property
    def passed(self) -> bool:
        return all(layer.passed for layer in self.sums) and all(item.passed for item in (*self.rewrite, *self.runtime))

    @property
    def sums_max(self) -> float:
        """Largest difference of merged sub-units to units, over all layers and inputs in range."""
        return _largest([item for layer in self.sums for item in layer.activations])

    @property
    def rewrite_max(self) -> float:
        """Largest difference of the torch models' outputs; 0 for the graft."""
        return _largest(self.rewrite)

    @property
    def runtime_max(self) -> float:
        """Largest difference of ONNX Runtime's unedited output to torch's, over all inputs in range."""
        return _largest([item for item in self.runtime if item.output in OUTPUT_NAMES.values()])

    @property
    def top1(self) -> float | None:
        """Smallest share of images, of any kind and setting, on which ONNX Runtime and torch agree;

        None for a model without classes.
        """
        return min((item.top1 for item in self.runtime if item.top1 is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """The content of ``equivalence.json``."""
        summary = {"sums": self.sums_max, "rewrite": self.rewrite_max, "runtime": self.runtime_max, "top1": self.top1}
        return {
            "schema_version": 1,
            "passed": self.passed,
            "summary": finite(summary),
            "images": self.images,
            "tolerance": self.rule,
            "divergence": None if self.divergence is None else finite(asdict(self.divergence)),
            "claims": {
                "sums": {"claim": self.claims["sums"], "layers": [item.to_json() for item in self.sums]},
                "rewrite": {"claim": self.claims["rewrite"], "outputs": [item.to_json() for item in self.rewrite]},
                "runtime": {"claim": self.claims["runtime"], "outputs": [item.to_json() for item in self.runtime]},
            },
        }

    def raise_if_failed(self) -> None:
        """Raise for the first claim that does not hold.

        Raises:
            EquivalenceError: names the claim and the number, and carries the whole report.
        """
        if self.passed:
            return
        where = "" if self.divergence is None else f"; {self.divergence}"
        raise EquivalenceError(
            f"{self._failure()}{where}.",
            "The export is not lossless and was refused; its report has every number.",
            self.to_json(),
        )

    def _failure(self) -> str:
        for layer in self.sums:
            if layer.mismatches:
                return (
                    f"Claim {self.claims['sums']} fails for {layer.layer}: {layer.mismatches} of {layer.weights} "
                    "weights and biases in the file "
                    f"do not sum, by up to {layer.largest:.3g} (allowed: 0)"
                )
        claims = (
            ("sums", [item for layer in self.sums for item in layer.activations]),
            ("rewrite", self.rewrite),
            ("runtime", self.runtime),
        )
        name, worst = next((name, item) for name, items in claims for item in items if not item.passed)
        return (
            f"Claim {self.claims[name]} fails for {worst.output} on {worst.inputs} inputs, {worst.setting}: off "
            f"by {worst.max_abs:.3g} "
            f"(allowed: {worst.tolerance:.3g}), worst at image {worst.worst['image']} in a batch of "
            f"{worst.worst['batch']}"
        )


def _largest(items: list[Comparison] | tuple[Comparison, ...]) -> float:
    return max((item.max_abs for item in items if item.inputs != "scaled"), default=0.0)
