"""A model to look into and to steer from Python: ``elude.load``.

It answers by the same code as a server does (``elude.handlers.service``), without one; no torch is loaded.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

from elude import result_html
from elude.addresses import locate
from elude.edits_input import concepts, edit_requests, identifier, members
from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle, LayerInfo
from elude.handlers.bundle.device import check_device
from elude.handlers.errors import ImageError, RequestError, UsageError
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service
from elude.handlers.settings import Limits, Settings
from elude.image_input import Picture, Pictures, are_several, encoded, named
from elude.instead import no_attribute
from elude.results import Feature, Inspection, Prediction, Result, Scene, Steering, SubUnits

if TYPE_CHECKING:
    from elude.model_store.versions import Version

_UNBOUNDED = 2**31 - 1
# A server bounds what a stranger may ask for; the caller of this module is the owner of the machine.
_LIMITS = replace(
    Limits(),
    max_bytes=result_html.LIMITS.max_bytes,
    max_pixels=result_html.LIMITS.max_pixels,
    max_edits=_UNBOUNDED,
    max_top_k=_UNBOUNDED,
    max_query=_UNBOUNDED,
    max_candidates=_UNBOUNDED,
    max_response=_UNBOUNDED,
)
_BATCH = 32  # images per forward pass
_CPU = "An exported model predicts in its own type and without gradients: leave it out."
_CUDA = "Write elude.load('BUNDLE', device='cuda')."
_BUNDLE = "The bundle is a folder, model.bundle.root: copy it whole."
_TORCH = "Write elude.load_model('NAME').module for the torch model."
_NO_LENGTH = "A model is not a list: see model.labels, model.layers, model.concepts."
_INSTEAD = {
    **dict.fromkeys(("cpu", "eval", "train", "float", "half", "requires_grad_", "no_grad"), _CPU),
    **dict.fromkeys(("to", "cuda", "device"), _CUDA),
    **dict.fromkeys(("forward", "run", "predict_proba", "classify", "infer"), "Write model.predict(image)."),
    **dict.fromkeys(("explain", "attribute", "activations", "heat_map", "saliency"), "Write model.inspect(image)."),
    **dict.fromkeys(("ablate", "edit", "intervene", "amplify"), "Write model.steer(image, {'NAME OR IDENTIFIER': 0})."),
    **dict.fromkeys(("classes", "class_names", "names"), "Write model.labels."),
    **dict.fromkeys(("features", "units", "neurons", "sub_units", "find"), "Write model.search('WORD')."),
    **dict.fromkeys(("parameters", "state_dict", "children", "modules", "named_modules"), _TORCH),
    **dict.fromkeys(("save", "save_pretrained", "export"), _BUNDLE),
    **{name: f"Write elude.{name}(model)." for name in ("evaluate", "judge")},
    "package": "Write elude.package(model, 'FOLDER').",
    "bake": "Write elude.bake(model, out='plain.onnx').",
    "admit": "Write elude.admit(model, 'STORE').",
    **dict.fromkeys(("push", "push_to_hub"), "Write elude.push(model, 'hf://OWNER/NAME')."),
    "serve": "Write elude.package(model, 'FOLDER'), then the command 'elude serve ARCHIVE'.",
    "name": "Write model.bundle.manifest.source.model.",
}
_Answer = TypeVar("_Answer", bound=Result)
_Read = Callable[[Mapping[str, Any], Scene], _Answer]
Edits = Mapping[Any, float | str] | Sequence[Mapping[str, Any]]


def load(
    source: str | os.PathLike[str] | Bundle | Version,
    *,
    preset: str | None = None,
    device: str = "cpu",
    providers: str | Sequence[str] | None = None,
) -> Model:
    """Open an exported model.

    Args:
        source: a bundle's folder; ``STORE#NAME/production`` or ``STORE#NAME/NUMBER``, where the store is a folder
            or a URL; ``hf://OWNER/NAME``, with ``@REVISION`` if it is not the newest; a ``Bundle`` or ``Version``.
        preset: predict and inspect with this preset's edits.
        device: where it runs: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU that ONNX Runtime can use.
        providers: execution providers of ONNX Runtime instead, which must be in use.

    Raises:
        UsageError: there is no such bundle, with what to write instead; an unknown preset, device or provider.
        BundleError: a file of it does not match its hash.
        GateError: ``ELUDE_ADMISSION`` is set, and the bundle does not fulfil what it requires.

    Example:
        >>> model = elude.load("build/bundle")  # doctest: +SKIP
        >>> model.predict("bag.png").label  # doctest: +SKIP
        'Bag'
    """
    root, temporary = locate(source)
    try:
        service = Service.open(
            root,
            Settings(limits=_LIMITS, preset=preset, device=check_device(device)),
            providers=(providers,) if isinstance(providers, str) else tuple(providers or ()),
            requirements=Requirements.load(),
        )
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    model = Model(service)
    if temporary is not None:
        weakref.finalize(model, shutil.rmtree, temporary, ignore_errors=True)
    return model


class Model:
    """An exported model, opened; see ``load``.

    Attributes:
        bundle: the bundle it was loaded from.
        labels: names of its classes; None for a model without classes.
    """

    def __init__(self, service: Service) -> None:
        if not isinstance(service, Service):
            raise UsageError(f"A model cannot be made of {service!r:.80}.", "Write elude.load('BUNDLE').")
        self._service = service
        self.bundle: Bundle = service.bundle
        self.labels: tuple[str, ...] | None = None if service.labels is None else tuple(service.labels)

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The layers that are split into sub-units."""
        return self._service.session.layers

    @property
    def presets(self) -> tuple[str, ...]:
        """Names of the bundle's presets, as ``steer`` takes them."""
        return tuple(self._service.presets)

    @property
    def concepts(self) -> dict[str, int]:
        """Sets of sub-units that answer to the same images, by name, with their sizes; the largest first."""
        return concepts(self._service.catalogue)

    @overload
    def predict(self, image: Picture, *, top_k: int = 5) -> Prediction: ...
    @overload
    def predict(self, image: Pictures, *, top_k: int = 5) -> list[Prediction]: ...
    def predict(self, image: Picture | Pictures, *, top_k: int = 5) -> Prediction | list[Prediction]:
        """The most probable classes of an image, or of each image of a list.

        Args:
            image: a path, encoded bytes, a PIL image, an array, a tensor, or a list of them (``encoded``).
            top_k: classes at most.

        Raises:
            ImageError, RequestError: an image cannot be read, or an argument not be used; says which.

        Example:
            >>> model.predict("bag.png").label  # doctest: +SKIP
            'Bag'
        """
        return self._on_images(Prediction.from_json, image, {"op": "predict", "top_k": top_k})

    __call__ = predict

    @overload
    def inspect(
        self,
        image: Picture,
        *,
        top_k: int = 10,
        layer: str | None = None,
        unit: str | None = None,
        by: str = "activation",
        target: str | None = None,
        candidates: int = 32,
        heat_map: str = "grid",
    ) -> Inspection: ...
    @overload
    def inspect(
        self,
        image: Pictures,
        *,
        top_k: int = 10,
        layer: str | None = None,
        unit: str | None = None,
        by: str = "activation",
        target: str | None = None,
        candidates: int = 32,
        heat_map: str = "grid",
    ) -> list[Inspection]: ...
    def inspect(
        self,
        image: Picture | Pictures,
        *,
        top_k: int = 10,
        layer: str | None = None,
        unit: str | None = None,
        by: str = "activation",
        target: str | None = None,
        candidates: int = 32,
        heat_map: str = "grid",
    ) -> Inspection | list[Inspection]:
        """The sub-units that an image activates most, or that matter most for a class, and where.

        Args:
            image: as ``predict`` takes it.
            top_k: sub-units at most.
            layer: of this layer only.
            unit: the parts of this unit only, e.g. ``blocks.5.mlp.fc2/u31``.
            by: ``activation``, or ``effect`` for the largest change of a class's logit when ablated.
            target: class that ``effect`` is measured on; the predicted one if left out.
            candidates: strongest sub-units whose effect is measured.
            heat_map: ``grid``, ``png`` (form of it in ``to_dict``), or ``none``.

        Example:
            >>> model.inspect("bag.png", top_k=3).sub_units[0].id  # doctest: +SKIP
            'blocks.5.mlp.fc2/u31.s4'
        """
        options = {"top_k": top_k, "layer": layer, "unit": unit, "by": by, "target": target, "heat_map": heat_map}
        return self._on_images(
            Inspection.from_json, image, {"op": "inspect", "candidates": candidates, **_given(options)}
        )

    @overload
    def steer(
        self,
        image: Picture,
        edits: Edits | None = None,
        *,
        preset: str | None = None,
        top_k: int = 5,
        compare: bool = True,
    ) -> Steering: ...
    @overload
    def steer(
        self,
        image: Pictures,
        edits: Edits | None = None,
        *,
        preset: str | None = None,
        top_k: int = 5,
        compare: bool = True,
    ) -> list[Steering]: ...
    def steer(
        self,
        image: Picture | Pictures,
        edits: Edits | None = None,
        *,
        preset: str | None = None,
        top_k: int = 5,
        compare: bool = True,
    ) -> Steering | list[Steering]:
        """The prediction with edited sub-units, beside the one without.

        Args:
            image: as ``predict`` takes it.
            edits: from what to change to how. What: the identifier of a sub-unit or unit, or a concept, which is all
                its sub-units. How: a gain (0 ablates, 1 changes nothing), or ``"set:2.5"``, ``"add:-1"``,
                ``"scale:3"``, ``"ablate"``, each with ``@N`` for the N strongest places only. Or a list of edits
                as a server takes them.
            preset: a preset of the bundle instead.
            top_k: classes at most.
            compare: whether also to predict without the edits.

        Raises:
            UsageError: there is no such sub-unit, name or change; says what there is.

        Example:
            >>> model.steer("bag.png", {"Bag": 0, "blocks.5.mlp.fc2/u31.s4": 3.0}).after.label  # doctest: +SKIP
            'Shirt'
        """
        if edits is None and preset is None:
            raise UsageError(
                "There is nothing to steer.", "Give edits, e.g. {'NAME OR IDENTIFIER': 0.0}, or preset='NAME'."
            )
        requested = None if edits is None else edit_requests(edits, self.layers, self._service.catalogue)
        options = {"edits": requested, "preset": preset, "top_k": top_k, "compare": compare}
        return self._on_images(Steering.from_json, image, {"op": "steer", **_given(options)})

    def search(self, query: str | None = None, *, image: Picture | None = None, limit: int = 20) -> SubUnits:
        """Sub-units by the words of their name or identifier, or those that an image activates unusually.

        Example:
            >>> model.search("bag").ids  # doctest: +SKIP
            ('blocks.5.mlp.fc2/u3.s1', 'blocks.5.mlp.fc2/u31.s4')
        """
        if query is not None and not isinstance(query, str):
            raise UsageError(f"A search takes words, not {type(query).__name__}.", "For an image: search(image=...).")
        body: dict[str, Any] = {"op": "search", "query": query, "limit": limit}
        data = None if image is None else self._encoded(image)
        if data is not None:
            body["image"] = base64.b64encode(data).decode()
        (answer,) = self._ask([_given(body)], [named(image, None)])
        return SubUnits.from_json(answer, self._scene(data))

    def concept(self, name: str) -> SubUnits:
        """The sub-units of a concept, by its name or identifier, most typical first; ``concepts`` lists the names.

        Raises:
            UsageError: there is no such concept; says which are like it.

        Example:
            >>> len(model.concept("Bag"))  # doctest: +SKIP
            12
        """
        rows = []
        for member in members(name, self.layers, self._service.catalogue):
            (row,) = self._ask([{"op": "feature", "id": member, "examples": 0}], [""])
            rows.append({key: value for key, value in row.items() if key not in ("concept", "siblings", "examples")})
        return SubUnits.from_json({"concept": name, "sub_units": rows}, self._scene(None))

    def feature(self, id: str, *, examples: int = 9) -> Feature:
        """One sub-unit: statistics, name, the images that activate it most.

        Args:
            id: identifier of a sub-unit.
            examples: images at most.

        Raises:
            UsageError: it is not the identifier of a sub-unit; says what to write instead.

        Example:
            >>> model.feature("blocks.5.mlp.fc2/u31.s4").examples[0].label  # doctest: +SKIP
            'Bag'
        """
        body = {"op": "feature", "id": identifier(id, self.layers, self._service.catalogue), "examples": examples}
        (answer,) = self._ask([body], [""])
        return Feature.from_json(answer, self._scene(None))

    def describe(self) -> dict[str, Any]:
        """What a server says of this model: layers, labels, presets, hashes, model card, verdict.

        Example:
            >>> model.describe().get("expansion_factor")  # doctest: +SKIP
            5.77
        """
        return self._ask([{"op": "describe"}], [""])[0]

    def __getitem__(self, name: str) -> SubUnits:
        """``concept(name)``."""
        return self.concept(name)

    def __fspath__(self) -> str:
        """The bundle's folder, so that a model stands where a bundle's path does."""
        return str(self.bundle.root)

    if not TYPE_CHECKING:  # so that an editor still marks them

        def __getattr__(self, name):
            raise no_attribute("An exported model", name, _INSTEAD)

        def __iter__(self):
            raise TypeError(_NO_LENGTH)

        __len__ = __iter__

        def __bool__(self):
            return True

    def __repr__(self) -> str:
        layers = ", ".join(f"{layer.name} ({layer.sub_units} sub-units)" for layer in self.layers)
        classes = "no classes" if self.labels is None else f"{len(self.labels)} classes"
        return f"<elude model {self.bundle.manifest.source.model}: {classes}; {layers}>"

    def _on_images(
        self, read: _Read[_Answer], images: Picture | Pictures, body: Mapping[str, Any]
    ) -> _Answer | list[_Answer]:
        """One result, or a list of them for several images, ``_BATCH`` per pass."""
        if not are_several(images):
            one: Any = images  # mypy narrows by a TypeGuard only where it is true
            return self._results(read, [(self._encoded(one), named(one, None))], body)[0]
        results: list[_Answer] = []
        for chunk in _chunks(enumerate(images), _BATCH):
            results += self._results(read, [self._element(image, position) for position, image in chunk], body)
        return results

    def _results(
        self, read: _Read[_Answer], images: Sequence[tuple[bytes, str]], body: Mapping[str, Any]
    ) -> list[_Answer]:
        bodies = [{**body, "image": base64.b64encode(data).decode()} for data, _ in images]
        answers = self._ask(bodies, [name for _, name in images])
        return [read(answer, self._scene(data)) for answer, (data, _) in zip(answers, images, strict=True)]

    def _ask(self, bodies: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
        """The service's answers; the first refusal becomes an error that names the caller's image and argument."""
        answers = self._service.answer([Call(dict(body)) for body in bodies])
        contents: list[dict[str, Any]] = [json.loads(answer.body) for answer in answers]
        for answer, content, name in zip(answers, contents, names, strict=True):
            if answer.status != 200:
                raise RequestError(_message(content["message"], name), status=answer.status)
        return contents

    def _encoded(self, image: Picture) -> bytes:
        return encoded(image, picture=self._service.preprocess.takes_pictures)

    def _element(self, image: Any, position: int) -> tuple[bytes, str]:
        name = named(image, position)
        try:
            return self._encoded(image), name
        except ImageError as error:
            raise ImageError(f"images[{position}]: {error.message}", error.remedy) from error

    def _scene(self, image: bytes | None) -> Scene:
        return Scene(image, self._service.preprocess, self._service.catalogue)


def _message(text: str, name: str) -> str:
    """A refusal in the words of a Python caller: the name of the image, and arguments rather than fields."""
    if text.startswith("image "):
        return name + text.removeprefix("image")
    return text.replace("Field '", "Argument '")


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(items, size)):
        yield chunk
