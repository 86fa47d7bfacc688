"""How a model is exported: every choice but the model, the images and the places."""

from __future__ import annotations

from dataclasses import dataclass

from elude.exporter.atlas.fill_catalogue import TOPS
from elude.exporter.scoring.measures import TOP
from elude.exporter.splitting.hdbscan import PICTURES
from elude.exporter.splitting.split_unit import SplitSettings
from elude.handlers.errors import UsageError

FEWEST_INSTANCES = 100
SMALLEST, SMALLEST_BY_PICTURES = 0.01, 0.004  # smallest cluster, part of the instances of a unit
METHODS = {
    "default": ("near-ties", "pictures"),
    "paper": ("literal", "hdbscan"),
}  # margin rule, clusterer; docs/method.md says why


@dataclass(frozen=True)
class ExportSettings:
    """How a model is exported.

    Attributes:
        max_images: probing images, at most; more are thinned out evenly. Bounds the memory of
            ``elude.exporter.probing.probe``.
        tokens_per_image: instances kept of each probing image.
        top_k: instances per unit that are clustered; None: a twelfth of all, between 100 and 2,000.
        min_cluster_size: fewest instances of a sub-unit's cluster; None: 1 % of ``top_k``, with the
            clusterer ``pictures`` 0.4 %, at least 5.
        method: one of ``METHODS``, which names margin rule and clusterer: ``default``, or ``paper``
            for the paper's own.
        margin_rule: instead of the method's: ``literal``, ``smallest``, ``signed`` or ``near-ties``
            (elude.exporter.splitting.margin).
        clusterer: instead of the method's: ``hdbscan``, ``projected`` or ``pictures``
            (elude.exporter.splitting.hdbscan).
        expansion: sub-units per unit of a layer, at most; of the clusterer ``pictures`` only.
        seed: of the choice of tokens, the clusterer and the control.
        batch_size: images per forward pass; changes speed and rounding only.
        verify_images: real images that the checks of equality run on, beside made-up ones.
        atlas_images: images whose strongest are shown in the catalogue, at most.
        tops: strongest images kept of each unit and sub-unit.
        names: ``labels`` names sub-units after the classes of their strongest images, ``none`` leaves them unnamed.
        measure_images: evaluation images of the MS-Score, at most.
        measure_top: strongest images per MS-Score.
        opset: ONNX operator set; None: the exporter's default.
        dtype: of the graph's weights and arithmetic: ``float32``, ``float16`` or ``bfloat16``.
        dynamic_size: leave the image's height and width open in the graph; the model must allow it.
        strict: refuse images that cannot be read, naming all of them, instead of leaving them out.
        device: where torch collects and measures: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU if there is one.
            The graph is written and compared with torch on the CPU.
    """

    max_images: int = 20_000
    tokens_per_image: int = 8
    top_k: int | None = None
    min_cluster_size: int | None = None
    method: str = "default"
    margin_rule: str | None = None
    clusterer: str | None = None
    expansion: float = 5.0
    seed: int = 0
    batch_size: int = 64
    verify_images: int = 32
    atlas_images: int = 3_000
    tops: int = TOPS
    names: str = "labels"
    measure_images: int = 5_000
    measure_top: int = TOP
    opset: int | None = None
    dtype: str = "float32"
    dynamic_size: bool = False
    strict: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.names not in ("labels", "none"):
            raise UsageError(f"names is {self.names!r}.", "Use 'labels' or 'none'; 'elude name' knows more ways.")
        if self.method not in METHODS:
            raise UsageError(f"There is no method {self.method!r}.", f"Choose one of {', '.join(METHODS)}.")
        for name in (
            "max_images",
            "tokens_per_image",
            "batch_size",
            "verify_images",
            "atlas_images",
            "tops",
            "measure_images",
            "measure_top",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}.", "Give at least 1.")

    def resolved(self) -> dict[str, str]:
        """Margin rule and clusterer, as the method or the caller chose them."""
        rule, clusterer = METHODS[self.method]
        return {"margin_rule": self.margin_rule or rule, "clusterer": self.clusterer or clusterer}

    def for_instances(self, count: int, layer: str = "the layer") -> SplitSettings:
        """The settings of the split of ``layer``, given its number of activation instances.

        Raises:
            UsageError: there are too few.
        """
        if count < FEWEST_INSTANCES:
            raise UsageError(
                f"The images give {count} activation instances of {layer}; at least {FEWEST_INSTANCES} are needed.",
                "Give more images, or raise tokens_per_image if the layer has more tokens.",
            )
        top_k = min(self.top_k or min(max(count // 12, FEWEST_INSTANCES), 2_000), count)
        chosen = self.resolved()
        part = SMALLEST_BY_PICTURES if chosen["clusterer"] == PICTURES else SMALLEST
        smallest = self.min_cluster_size or max(round(top_k * part), 5)
        rule, clusterer = chosen["margin_rule"], chosen["clusterer"]
        return SplitSettings(top_k, smallest, rule, clusterer, self.seed, self.expansion)
