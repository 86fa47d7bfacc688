"""What the outputs of a model mean. It is said when a model is exported, and never guessed from their number."""

from __future__ import annotations

from collections.abc import Mapping

from elude.handlers.errors import BundleError

CLASSES, MULTI_LABEL, REGRESSION, EMBEDDING = "classes", "multi-label", "regression", "embedding"
# Each kind with the name of the graph's output.
OUTPUT_NAMES = {CLASSES: "logits", MULTI_LABEL: "logits", REGRESSION: "values", EMBEDDING: "embedding"}
OUTPUT_KINDS = tuple(OUTPUT_NAMES)
METADATA = "elude.output_kind"


def output_kind_of(metadata: Mapping[str, str], output_name: str, file: str) -> str:
    """The kind that a file names; of a file without an entry, written by 0.2, that of its output's name.

    Raises:
        BundleError: the kind is unknown or does not fit the output's name.
    """
    kind = metadata.get(METADATA) or (EMBEDDING if output_name == OUTPUT_NAMES[EMBEDDING] else CLASSES)
    if OUTPUT_NAMES.get(kind) != output_name:
        raise BundleError(
            f"{file}: {METADATA} is {kind!r} and the output is named {output_name!r}.", "Export the model again."
        )
    return kind
