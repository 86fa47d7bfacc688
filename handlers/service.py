"""A served bundle: a batch of unlike requests becomes one forward pass and one answer each. Knows no server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handlers import operations
from handlers.bundle import Bundle, LayerInfo
from handlers.catalogue import Catalogue
from handlers.edits import Edit
from handlers.errors import BundleError, ImageError, RequestError, UsageError
from handlers.images import decode
from handlers.preprocess import Preprocess
from handlers.requests import OPERATIONS, Describe, Feature, Inspect, Limits, Predict, Request, Search, Steer, parse
from handlers.session import GraphSession


class Result(Protocol):
    """What a session returns: output (N, C), units and sub-units by layer, (N, T, U) and (N, T, S)."""

    @property
    def output(self) -> NDArray[np.float32]: ...
    @property
    def units(self) -> dict[str, NDArray[np.float32]]: ...
    @property
    def sub_units(self) -> dict[str, NDArray[np.float32]]: ...


class Session(Protocol):
    """The part of ``GraphSession`` that serving needs."""

    @property
    def layers(self) -> tuple[LayerInfo, ...]: ...
    @property
    def output_name(self) -> str: ...
    def run(self, pixel_values: NDArray[np.float32], edits: Sequence[Sequence[Edit]] | None = None, inspect: bool = False) -> Result: ...


@dataclass(frozen=True)
class Call:
    """One request as it came: its body, and the route's meaning."""

    body: Any
    explain: bool = False
    describe: bool = False


@dataclass(frozen=True)
class Answer:
    """One answer: HTTP status, JSON body, and the operation for metrics (``invalid`` if it could not be told)."""

    status: int
    body: bytes
    operation: str


@dataclass
class _Work:
    """A request on its way: its rows of the batch, or the error that ends it."""

    operation: str = "invalid"
    request: Request | None = None
    pixels: NDArray[np.uint8] | None = None
    edits: operations.Steered | None = None
    row: int = -1
    error: RequestError | None = None


class Service:
    """Answers requests on one bundle.

    Args:
        bundle: opened and verified.
        session: on the bundle's graph.
        limits: what a request may at most ask for.
    """

    def __init__(self, bundle: Bundle, session: Session, limits: Limits = Limits()) -> None:
        self.bundle, self.session, self.limits = bundle, session, limits
        self.preprocess = Preprocess.from_json(bundle.json("preprocess.json"))
        self.catalogue = Catalogue(bundle.path("catalogue.sqlite")) if bundle.has("catalogue.sqlite") else None
        sub_units = sum(layer.sub_units for layer in session.layers)
        if session.layers != bundle.manifest.layers or (self.catalogue and self.catalogue.count() != sub_units):
            raise BundleError(f"{bundle.root}: manifest, graph and catalogue name different sub-units.", "Export the bundle again.")
        # One pass when loading: a graph that cannot run is found before the first request, which is then as fast as the others.
        blank = np.zeros((1, *self.preprocess.input_size[1:], 3), np.uint8)
        classes = session.run(self.preprocess.normalise(blank)).output.shape[1]
        self.labels = None if session.output_name == "embedding" else _labels(bundle, classes)

    @classmethod
    def open(cls, path: str | Path, limits: Limits = Limits(), *, providers: tuple[str, ...] = ("CPUExecutionProvider",)) -> Service:
        """Open a bundle, compare every hash, and load its graph with one thread.

        Raises:
            BundleError: something in the bundle does not match its manifest.
        """
        bundle = Bundle.open(path, verify=True)
        return cls(bundle, GraphSession(bundle.path("model.onnx"), providers=providers), limits)

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answer each call on its own; those with an image share one forward pass."""
        works = [self._prepare(call) for call in calls]
        pixels: list[NDArray[np.uint8]] = []
        edits: list[tuple[Edit, ...]] = []
        for work in works:
            if work.pixels is not None:
                work.row = len(pixels)
                pixels.append(work.pixels)
                edits.append(())
                if work.edits is not None:
                    pixels.append(work.pixels)
                    edits.append(work.edits.edits)
        result = None
        if pixels:
            inspecting = any(isinstance(work.request, Inspect) and work.pixels is not None for work in works)
            result = self.session.run(self.preprocess.normalise(np.stack(pixels)), edits if any(edits) else None, inspecting)
        return [self._finish(work, result) for work in works]

    def describe(self) -> dict[str, Any]:
        """What is served: model, layers, operations, limits, hashes, and the gate's ``verdict`` if there is one.

        A missing verdict is left out rather than null, as TorchServe drops nulls on its management address.
        """
        manifest = self.bundle.manifest
        layers = [{"name": layer.name, "kind": layer.kind, "units": layer.units, "sub_units": layer.sub_units} for layer in manifest.layers]
        return {
            "source": manifest.source.to_json(),
            "artefact_sha256": self.bundle.artefact_sha256,
            "schema_version": manifest.schema_version,
            "versions": manifest.versions,
            "parameters": manifest.parameters,
            "expansion_factor": manifest.expansion_factor,
            "layers": layers,
            "labels": self.labels,
            "preprocess": self.preprocess.to_json(),
            "operations": list(OPERATIONS),
            "limits": asdict(self.limits),
        } | ({"verdict": self.bundle.json("verdict.json")} if self.bundle.has("verdict.json") else {})

    def _prepare(self, call: Call) -> _Work:
        work = _Work()
        try:
            work.request = Describe() if call.describe else parse(call.body, explain=call.explain, limits=self.limits)
            work.operation = type(work.request).__name__.lower()
            if isinstance(work.request, Steer):
                work.edits = operations.resolve(work.request.edits, self.session.layers, self.catalogue)
            if isinstance(work.request, Inspect) and work.request.layer not in (None, *(layer.name for layer in self.session.layers)):
                names = ", ".join(layer.name for layer in self.session.layers)
                raise RequestError(f"Field 'layer' is {work.request.layer!r}.", f"Inspected layers: {names}.", 404)
            if isinstance(work.request, (Predict, Inspect, Steer)):
                work.pixels = self.preprocess.pixels(decode(work.request.image, "image", self.limits.image))
        except RequestError as error:
            work.error = error
        except ImageError as error:
            work.error = RequestError(error.message, error.remedy)
        return work

    def _finish(self, work: _Work, result: Result | None) -> Answer:
        if work.error is None:
            try:
                content = self._content(work, result)
                # TorchServe's own classifier indents its answer by 2; the others may hold large maps.
                text = json.dumps(content, indent=2 if work.operation == "predict" else None, allow_nan=False)
                return Answer(200, text.encode(), work.operation)
            except ValueError:
                work.error = RequestError("The model's answer is not finite.", "Use smaller values in the edits.", 422)
            except RequestError as error:
                work.error = error
            except UsageError as error:
                work.error = operations.as_request_error(error)
        body = {"code": work.error.status, "type": "RequestError", "message": str(work.error)}
        return Answer(work.error.status, json.dumps(body).encode(), work.operation)

    def _content(self, work: _Work, result: Result | None) -> dict[str, Any]:
        request, row = work.request, work.row
        match request:
            case Feature():
                return operations.feature(request, self.session.layers, operations.need(self.catalogue))
            case Search():
                return operations.search(request, operations.need(self.catalogue))
            case Describe() | None:
                return self.describe()
        if result is None:
            raise AssertionError("a request with an image has a row of the forward pass")
        output = result.output[row]
        match request:
            case Predict():
                return operations.predict(output, self.labels, request.top_k)
            case Steer() if work.edits is not None:
                return operations.steer(request, work.edits, output, result.output[row + 1], self.labels)
            case Inspect():
                units = {name: values[row] for name, values in result.units.items()}
                sub_units = {name: values[row] for name, values in result.sub_units.items()}
                size = self.preprocess.input_size[1:]
                prediction = operations.predict(output, self.labels, 5)
                return {"prediction": prediction} | operations.inspect(
                    request, units, sub_units, layers=self.session.layers, image_size=size, catalogue=self.catalogue
                )
        raise AssertionError(f"no answer is written for {type(request).__name__}")


def _labels(bundle: Bundle, classes: int) -> list[str]:
    """Names of the classes, their numbers if unknown; a name that several share gets its number, as an answer's keys must differ."""
    names = bundle.json("labels.json") if bundle.has("labels.json") else None
    if names is None:
        return [str(i) for i in range(classes)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BundleError(f"{bundle.root}: labels.json must be a list of texts or null.", "Export the bundle again.")
    if len(names) != classes:
        raise BundleError(f"{bundle.root}: labels.json names {len(names)} classes, the graph has {classes}.", "Export the bundle again.")
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
