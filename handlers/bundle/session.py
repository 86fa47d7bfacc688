"""A model file of this project, opened: one forward pass for a batch in which every image has its own edits.

The verification, the quality measures and the server all use this class, so what is checked is what is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from elude.handlers.bundle.bundle import Bundle, LayerInfo
from elude.handlers.bundle.device import provider_options
from elude.handlers.bundle.edits import PADDING, Edit, pack
from elude.handlers.bundle.external_data import check_external_data, private_model
from elude.handlers.bundle.graph_metadata import OUTPUTS, check_interface, read_layers
from elude.handlers.bundle.output_kinds import output_kind_of
from elude.handlers.errors import BundleError, RequestError, UsageError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class GraphResult:
    """What one forward pass gave.

    Attributes:
        output: float32 (N, outputs), logits, values or embedding.
        units: layer → float32 (N, tokens, units), the pre-activations before any edit of that
            layer; empty unless inspected.
        sub_units: layer → float32 (N, tokens, sub-units), sums per unit to ``units``; empty unless inspected.
    """

    output: Array
    units: dict[str, Array] = field(default_factory=dict)
    sub_units: dict[str, Array] = field(default_factory=dict)


class GraphSession:
    """Runs ``model.onnx``. A bundle's is opened with ``of``, which compares it with the manifest.

    Args:
        path: the file; weights outside it must lie in a plain file beside it.
        providers: execution providers that must be in use, in this order (elude.handlers.bundle.device); ONNX
            Runtime's silent fall-back is an error here. ``CUDAExecutionProvider:1`` is the second GPU.
        threads: threads within an operator.
        optimise: whether ONNX Runtime may rewrite the graph. Off, unedited output is bit-identical
            to the plain export's.

    Raises:
        BundleError: the file cannot be read or is not one of this project's.
        UsageError: an asked provider is not available or not the one in use, or ``threads`` is below 1.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 1,
        optimise: bool = True,
    ) -> None:
        name = Path(path).name
        self._session = _open(Path(path), list(providers), threads, optimise)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.layers: tuple[LayerInfo, ...] = read_layers(self.metadata, name)
        inputs = {
            value.name: value for value in [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        }
        outputs = [value.name for value in self._session.get_outputs()]
        check_interface(list(inputs), outputs, self.layers, name)
        self.output_name: str = next(name for name in OUTPUTS if name in outputs)
        self.output_kind: str = output_kind_of(self.metadata, self.output_name, name)
        _, *size = inputs["pixel_values"].shape
        self.input_size: tuple[int | str, ...] = tuple(size)
        self.sub_units = sum(layer.sub_units for layer in self.layers)

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 1,
        optimise: bool = True,
    ) -> GraphSession:
        """The model of a bundle, from a private copy that was hashed as it was made: the arguments are as above.

        Raises:
            BundleError: as above, or a file is not as the manifest says.
            UsageError: as above.
        """
        with private_model(bundle) as (path, _):
            return cls(path, providers=providers, threads=threads, optimise=optimise)

    @property
    def provider(self) -> str:
        """The execution provider in use."""
        return str(self._session.get_providers()[0])

    def run(
        self, pixel_values: Array, edits: Sequence[Sequence[Edit]] | None = None, inspect: bool = False
    ) -> GraphResult:
        """One forward pass.

        Args:
            pixel_values: float32 (N, channels, H, W), preprocessed.
            edits: of each image, or one row for all of them; none by default.
            inspect: whether to compute units and sub-units.

        Raises:
            RequestError: pixels of another shape or type, an unknown sub-unit, a gain or offset
                that is not finite, a negative number of patches, or rows of edits that do not fit
                the images.
        """
        self._check_pixels(pixel_values)
        rows = [] if edits is None else edits
        self._check_edits(rows, len(pixel_values))
        feed: dict[str, NDArray[np.generic]] = {"pixel_values": pixel_values, **pack(rows)}
        if not inspect:
            return GraphResult(self._session.run([self.output_name], feed)[0])
        feed["inspect"] = np.asarray(True)
        names = [f"{layer.name}.{kind}" for kind in ("units", "sub_units") for layer in self.layers]
        output, *rest = self._session.run([self.output_name, *names], feed)
        count = len(self.layers)
        units = {layer.name: value for layer, value in zip(self.layers, rest[:count], strict=True)}
        return GraphResult(
            output, units, {layer.name: value for layer, value in zip(self.layers, rest[count:], strict=True)}
        )

    def _check_pixels(self, pixels: Array) -> None:
        wanted = f"float32 (N, {', '.join(map(str, self.input_size))}) with N of at least 1"
        fits = pixels.ndim == 4 and len(pixels) > 0
        fits = fits and all(
            not isinstance(size, int) or size == got
            for size, got in zip(self.input_size, pixels.shape[1:], strict=True)
        )
        if pixels.dtype != np.float32 or not fits:
            raise RequestError(f"pixel_values is {pixels.dtype} {pixels.shape}.", f"This model takes {wanted}.")

    def _check_edits(self, rows: Sequence[Sequence[Edit]], images: int) -> None:
        if len(rows) not in (0, 1, images):
            raise RequestError(
                f"There are {len(rows)} rows of edits for {images} images.", "Give one row, or one for each image."
            )
        for edit in (edit for row in rows for edit in row):
            if not PADDING <= edit.index < self.sub_units:
                raise RequestError(
                    f"There is no sub-unit {edit.index}.", f"Indices run from 0 to {self.sub_units - 1}.", 404
                )
            if not (abs(edit.gain) <= _LARGEST and abs(edit.offset) <= _LARGEST):  # false for NaN
                raise RequestError(
                    f"The edit of sub-unit {edit.index} has gain {edit.gain} and offset {edit.offset}.",
                    "Both must be finite in float32.",
                )
            if not 0 <= edit.patches < 2**31:
                raise RequestError(
                    f"The edit of sub-unit {edit.index} has {edit.patches} patches.",
                    "Use 0 for all, or a positive number.",
                )


def _open(path: Path, providers: list[str], threads: int, optimise: bool) -> ort.InferenceSession:
    if threads < 1:
        raise UsageError(f"threads is {threads}.", "Use 1 or more.")
    with_options = [provider_options(provider) for provider in providers]
    names = [name for name, _ in with_options]
    missing = [name for name in names if name not in ort.get_available_providers()]
    if missing or not providers:
        raise UsageError(
            f"Execution provider {', '.join(missing) or '(none)'} is not available.",
            f"Available: {', '.join(ort.get_available_providers())}. For CUDA install onnxruntime-gpu instead of "
            "onnxruntime.",
        )
    if path.is_dir():
        raise BundleError(f"{path} is a folder.", f"Name the file in it: '{path / 'model.onnx'}'.")
    if not path.is_file():
        raise BundleError(f"{path} does not exist.", "Name a file that 'elude export' wrote.")
    check_external_data(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # waiting threads must not burn a shared machine's cores
    options.log_severity_level = 3  # optional inputs are not constant, of which it warns for every file
    level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL if optimise else ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    try:
        session = ort.InferenceSession(str(path), options, providers=with_options)
    except _FAILURES as error:
        raise BundleError(
            f"{path.name} cannot be opened: {str(error).splitlines()[0]}", "Export the model again."
        ) from error
    in_use = session.get_providers()
    if in_use[: len(names)] != names:
        raise UsageError(
            f"ONNX Runtime uses {', '.join(in_use)} instead of {', '.join(names)}.",
            "Check the provider's libraries.",
        )
    return session


_LARGEST = float(np.finfo(np.float32).max)
_STATE = ort.capi.onnxruntime_pybind11_state
_FAILURES = (
    _STATE.Fail,
    _STATE.InvalidProtobuf,
    _STATE.InvalidGraph,
    _STATE.InvalidArgument,
    _STATE.NoSuchFile,
    _STATE.NotImplemented,
    _STATE.RuntimeException,
)
