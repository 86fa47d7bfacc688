"""What can be asked: one frozen dataclass per operation.

The validator, the answers and ``docs/openapi.json`` all read these.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from elude.handlers.settings import Limits

__all__ = [
    "OPERATIONS",
    "Concept",
    "Describe",
    "EditRequest",
    "Feature",
    "Inspect",
    "Limits",
    "Predict",
    "Request",
    "Search",
    "Steer",
]

_ID = {"maximum": 300, "about": "identifier of a sub-unit, e.g. blocks.5.mlp.fc2/u31.s4"}
_IMAGE = {"limit": "max_bytes", "about": "encoded image, base64"}
_TOP_K = {"minimum": 1, "limit": "max_top_k", "about": "how many at most"}


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """Change a sub-unit, or all of a concept: scale the activation, ablate it, set it or add to it."""

    action: str = field(
        metadata={"choices": ("scale", "ablate", "set", "add"), "about": "what happens to the activation"}
    )
    id: str | None = field(default=None, metadata=_ID)
    concept: str | None = field(
        default=None,
        metadata={"maximum": 300, "about": "a concept, by name or identifier: all its sub-units; instead of id"},
    )
    top: int | None = field(
        default=None,
        metadata={"minimum": 1, "maximum": 2**31 - 1, "about": "of a concept: only its most typical sub-units"},
    )
    value: float | None = field(
        default=None,
        metadata={"limit": "max_value", "symmetric": True, "about": "gain, value or addend; none for ablate"},
    )
    patches: int = field(
        default=0,
        metadata={
            "minimum": 0,
            "maximum": 2**31 - 1,
            "about": "0: all tokens; n: only the n tokens of strongest activation",
        },
    )


@dataclass(frozen=True)
class Predict:
    """The most probable classes of an image."""

    image: bytes = field(metadata=_IMAGE)
    top_k: int = field(default=5, metadata=_TOP_K)


@dataclass(frozen=True)
class Inspect:
    """The sub-units that an image activates most, or that matter most for a class, and where."""

    image: bytes = field(metadata=_IMAGE)
    top_k: int = field(default=10, metadata=_TOP_K)
    layer: str | None = field(default=None, metadata={"maximum": 200, "about": "of this layer only"})
    unit: str | None = field(
        default=None,
        metadata={
            "maximum": 300,
            "about": "the parts of this unit only, e.g. blocks.5.mlp.fc2/u31, to see them side by side",
        },
    )
    concept: str | None = field(
        default=None,
        metadata={"maximum": 300, "about": "the sub-units of this concept only, by its name or identifier"},
    )
    heat_map: str = field(
        default="grid", metadata={"choices": ("grid", "png", "none"), "about": "form of the map over the image"}
    )
    by: str = field(
        default="activation",
        metadata={
            "choices": ("activation", "effect"),
            "about": "order: largest activation, or largest change of a class's logit when ablated",
        },
    )
    target: str | None = field(
        default=None,
        metadata={"maximum": 300, "about": "label of the class for by=effect; the predicted one if left out"},
    )
    candidates: int = field(
        default=32,
        metadata={
            "minimum": 1,
            "limit": "max_candidates",
            "about": "for by=effect: strongest sub-units whose effect is measured",
        },
    )


@dataclass(frozen=True)
class Steer:
    """The prediction with edited sub-units, beside the one without."""

    image: bytes = field(metadata=_IMAGE)
    edits: tuple[EditRequest, ...] | None = field(
        default=None, metadata={"limit": "max_edits", "about": "applied at once"}
    )
    preset: str | None = field(
        default=None, metadata={"maximum": 200, "about": "a named list of edits, instead of edits"}
    )
    top_k: int = field(default=5, metadata=_TOP_K)
    compare: bool = field(
        default=True, metadata={"about": "also give the unsteered prediction, which costs a second row of the pass"}
    )


@dataclass(frozen=True)
class Feature:
    """One sub-unit: statistics, name, example images."""

    id: str = field(metadata=_ID)
    examples: int = field(default=9, metadata={"minimum": 0, "maximum": 100, "about": "example images at most"})


@dataclass(frozen=True)
class Concept:
    """One concept: its sub-units, example images, how strong it is on how many images, what is like it."""

    id: str = field(metadata={"maximum": 300, "about": "identifier of a concept, e.g. c12, or its name"})
    examples: int = field(default=9, metadata={"minimum": 0, "maximum": 100, "about": "example images at most"})


@dataclass(frozen=True)
class Search:
    """Sub-units by name, or those that an image activates unusually."""

    query: str | None = field(
        default=None, metadata={"limit": "max_query", "about": "words of a name, or of an identifier"}
    )
    image: bytes | None = field(default=None, metadata=_IMAGE | {"about": "encoded image, base64; instead of query"})
    limit: int = field(default=20, metadata=_TOP_K)


@dataclass(frozen=True)
class Describe:
    """What is served: model, layers, operations, presets, limits, hashes, model card, verdict."""


Request = Predict | Inspect | Steer | Feature | Concept | Search | Describe
OPERATIONS: dict[str, type[Request]] = {
    "predict": Predict,
    "inspect": Inspect,
    "steer": Steer,
    "feature": Feature,
    "concept": Concept,
    "search": Search,
    "describe": Describe,
}
