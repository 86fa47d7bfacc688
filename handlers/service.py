"""A served bundle: a batch of mixed requests becomes one forward pass and one answer each. Knows no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from elude.handlers.admission.admission import UNCHECKED, Admission, admit
from elude.handlers.admission.requirements import Requirements
from elude.handlers.answers import lookups, operations
from elude.handlers.answers.forward_pass import Row, Session, effects_of, run_rows
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import CATALOGUE, Catalogue
from elude.handlers.bundle.device import providers_of
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import BundleError, GateError, ImageError, RequestError, UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.images.read_pixels import Pixels, pixel_readers
from elude.handlers.json_writing import compact, indented
from elude.handlers.requests.calls import Answer, Call, Job, Work, refusal
from elude.handlers.requests.forms import PLAIN, Form, parse, parse_form
from elude.handlers.requests.presets import read_presets
from elude.handlers.requests.schema import (
    OPERATIONS,
    Concept,
    Describe,
    Feature,
    Inspect,
    Predict,
    Request,
    Search,
    Steer,
)
from elude.handlers.requests.steering import Steered, resolve
from elude.handlers.settings import Settings


class Service:
    """Answers requests on one bundle.

    Args:
        bundle: opened and verified.
        session: on the bundle's graph.
        settings: limits, steering, preset.
        model: its name, for the forms of answer that repeat it.
        admission: what was found of its verdict; it may forbid presets and free steering, and it may end.

    Raises:
        BundleError: files of the bundle contradict each other.
        UsageError: the settings name a preset that the bundle does not have.
        GateError: the settings name a preset that may not be served.
    """

    def __init__(
        self,
        bundle: Bundle,
        session: Session,
        settings: Settings = Settings(),
        *,
        model: str = "elude",
        admission: Admission = UNCHECKED,
    ) -> None:
        self.bundle, self.session, self.settings, self.model, self.admission = (
            bundle,
            session,
            settings,
            model,
            admission,
        )
        self.preprocess = Preprocess.from_json(bundle.json("preprocess.json"))
        self.catalogue = Catalogue.of(bundle) if bundle.has(CATALOGUE) else None
        sub_units = sum(layer.sub_units for layer in session.layers)
        if session.layers != bundle.manifest.layers or (self.catalogue and self.catalogue.count() != sub_units):
            raise BundleError(
                f"{bundle.root}: manifest, graph and catalogue name different sub-units.", "Export the bundle again."
            )
        self.presets = read_presets(bundle, session.layers, self.catalogue, settings.limits)
        if settings.preset:
            admission.require_preset(settings.preset)
        self._base = self._preset(settings.preset, UsageError).edits if settings.preset else ()
        self._documents = _documents(bundle)
        # One pass when loading: a graph that cannot run is found before the first request, which is
        # then as fast as the others.
        channels, *size = self.preprocess.input_size
        blank = np.zeros((1, *size, channels), np.uint8)
        classes = session.run(self.preprocess.normalise(blank)).output.shape[1]
        self.labels = None if session.output_name == "embedding" else _labels(bundle, classes)

    @classmethod
    def open(
        cls,
        path: str | Path,
        settings: Settings = Settings(),
        *,
        model: str = "elude",
        providers: tuple[str, ...] | None = None,
        requirements: Requirements = Requirements(),
        threads: int = 1,
    ) -> Service:
        """Open a bundle, compare every hash, ask whether it may be served, and load its graph.

        One thread is best for many callers, several for one who waits for each answer. It runs on
        ``settings.device`` unless ``providers`` are given.

        Raises:
            BundleError: something in the bundle does not match its manifest.
            UsageError: the device is not there.
            GateError: it does not fulfil the requirements.
        """
        bundle = Bundle.open(path, verify=True)
        admission = admit(bundle, requirements)
        return cls(
            bundle,
            GraphSession.of(bundle, providers=providers or providers_of(settings.device), threads=threads),
            settings,
            model=model,
            admission=admission,
        )

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answer each call on its own; those with an image share one forward pass."""
        return self.run([self.prepare(call) for call in calls])

    def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """Answer prepared calls in one forward pass."""
        pixels: list[Pixels] = []
        edits: list[tuple[Edit, ...]] = []
        inspecting = False
        for work in (work for job in jobs if job.error is None for work in job.works):
            if work.pixels is not None:
                work.first = len(pixels)
                pixels += [work.pixels] * len(work.rows)
                edits += work.rows
                inspecting = inspecting or isinstance(work.request, (Inspect, Search))
        rows = run_rows(self.session, self.preprocess.normalise(np.stack(pixels)), edits, inspecting) if pixels else []
        return [self._finish(job, rows) for job in jobs]

    def describe(self) -> dict[str, Any]:
        """What is served: model, layers, operations, presets that may be served, limits, hashes, model card,
        admission and verdict.

        What is not there is left out rather than null, as TorchServe drops nulls on its management address.
        """
        manifest = self.bundle.manifest
        layers = [
            {"name": layer.name, "kind": layer.kind, "units": layer.units, "sub_units": layer.sub_units}
            for layer in manifest.layers
        ]
        found: dict[str, Any] = {
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
            "limits": asdict(self.settings.limits),
            "steering": self._steering(),
            "presets": {name: self.presets[name].described for name in self._served_presets()},
            "admission": self.admission.to_json(),
            "files": manifest.files,
        }
        if self.settings.preset:
            found["preset"] = self.settings.preset
        return found | self._documents

    def prepare(self, call: Call) -> Job:
        """Read a call and decode its images; safe in several threads at once."""
        job = Job()
        where = ""
        try:
            form = self._form(call)
            job.form, job.operation = form, type(form.requests[0]).__name__.lower()
            if job.operation != "describe":
                self.admission.require_current()
            for i, request in enumerate(form.requests):
                where = form.where(i)
                job.works.append(self._work(request))
            self._read_images(job.works, form)
        except RequestError as error:
            job.error = RequestError(where + error.message, error.remedy, error.status)
        except ImageError as error:
            job.error = RequestError(error.message, error.remedy)
        except GateError as error:  # the verdict has ended since the model was loaded
            job.error = RequestError(error.message, error.remedy, 503)
        return job

    def _form(self, call: Call) -> Form:
        limits = self.settings.limits
        if call.describe:
            return Form((Describe(),))
        if call.form is not None:
            return parse_form(call.form, explain=call.explain, limits=limits)
        return parse(call.body, explain=call.explain, limits=limits)

    def _work(self, request: Request) -> Work:
        work = Work(request)
        match request:
            case Steer():
                work.steered = self._steered(request)
                work.rows = [(), work.steered.edits] if request.compare else [work.steered.edits]
            case Inspect():
                layers = operations.chosen_layers(request.layer, self.session.layers)
                operations.asked_sub_units(request, layers, self.catalogue)
                if request.by == "effect":
                    self._target(request.target, None)
                elif request.target is not None:
                    raise RequestError("Field 'target' is only for 'by': 'effect'.")
                work.rows = [self._base]
            case Predict():
                work.rows = [self._base]
            case Search():
                lookups.need(self.catalogue)
                if (request.query is None) == (request.image is None):
                    raise RequestError("A search needs either 'query' or 'image'.")
                work.rows = [()]
        return work

    def _read_images(self, works: Sequence[Work], form: Form) -> None:
        """Decode the images of one call, one after the other, once all of them were found to be within the limits."""
        named = [
            (work, f"{form.where(i)}image", work.request.image)
            for i, work in enumerate(works)
            if not isinstance(work.request, (Feature, Concept, Describe)) and work.request.image is not None
        ]
        images = [(name, image) for _, name, image in named]
        readers = pixel_readers(images, self.preprocess, self.settings.image_limits)
        for (work, _, _), read in zip(named, readers, strict=True):
            work.pixels = read()

    def _steered(self, request: Steer) -> Steered:
        steering = self._steering()
        if steering == "off":
            raise RequestError("Steering is switched off on this server.", "Ask its operator.", 403)
        if (request.edits is None) == (request.preset is None):
            raise RequestError(
                "Field 'edits' is missing." if request.edits is None else "A request has either 'edits' or 'preset'."
            )
        if request.preset is not None:
            found = self._preset(request.preset, RequestError)
            try:
                self.admission.require_preset(request.preset)
            except GateError as error:
                raise RequestError(error.message, "Use one that 'describe' lists.", 403) from error
            return found
        if steering == "presets":
            raise RequestError(
                "Only presets may be served here.", f"Use one of {', '.join(self._served_presets()) or 'none'}.", 403
            )
        return resolve(request.edits or (), self.session.layers, self.catalogue, self.settings.limits)

    def _steering(self) -> str:
        """What the archive's settings and the server's requirements both allow."""
        return (
            "presets"
            if self.settings.steering == "free" and not self.admission.free_steering
            else self.settings.steering
        )

    def _served_presets(self) -> list[str]:
        if self.admission.required:
            return [name for name in self.presets if name in self.admission.presets]
        return [name for name in self.presets if name not in self.admission.refused]

    def _preset(self, name: str, error: type[RequestError] | type[UsageError]) -> Steered:
        if name in self.presets:
            return self.presets[name]
        message, remedy = f"There is no preset {name!r}.", f"Presets: {', '.join(self._served_presets()) or 'none'}."
        raise error(message, remedy, 404) if error is RequestError else error(message, remedy)

    def _finish(self, job: Job, rows: Sequence[Row | RequestError]) -> Answer:
        if job.error is None and job.form is not None:
            where = ""
            try:
                contents = []
                for i, work in enumerate(job.works):
                    where = job.form.where(i)
                    contents.append(self._content(work, rows))
                where = ""
                content = job.form.wrap(contents, self.model)
                flat = job.operation == "predict" and job.form.kind == PLAIN and self.labels is not None
                text = (indented if flat else compact)(content)
                if len(text) <= self.settings.limits.max_response:
                    return Answer(200, text, job.operation)
                most = self.settings.limits.max_response
                job.error = RequestError(
                    f"The answer has {len(text)} bytes; at most {most} are allowed.", "Ask for less.", 422
                )
            except ValueError:
                job.error = RequestError(
                    f"{where}The model's answer is not finite.", "Use smaller values in the edits.", 422
                )
            except RequestError as error:
                job.error = RequestError(where + error.message, error.remedy, error.status)
            except UsageError as error:  # a look-up that found nothing
                job.error = RequestError(where + error.message, error.remedy, 404)
        return refusal(job.error or RequestError("The request was not read.", status=500), job.operation)

    def _content(self, work: Work, rows: Sequence[Row | RequestError]) -> dict[str, Any]:
        request = work.request
        if work.pixels is None:
            return self._looked_up(request)
        own = []
        for row in rows[work.first : work.first + len(work.rows)]:
            if isinstance(row, RequestError):
                raise row
            own.append(row)
        match request:
            case Predict():
                return operations.predict(own[0], self.labels, request.top_k)
            case Steer() if work.steered is not None:
                return operations.steer(work.steered, own, self.labels, request.top_k)
            case Search():
                return lookups.search_by_image(
                    request, own[0].sub_units, self.session.layers, lookups.need(self.catalogue)
                )
            case Inspect() if work.pixels is not None:
                return self._inspected(request, work.pixels, own[0])
        raise AssertionError(f"no answer is written for {type(request).__name__}")

    def _looked_up(self, request: Request) -> dict[str, Any]:
        match request:
            case Feature():
                return lookups.feature(request, self.session.layers, lookups.need(self.catalogue))
            case Concept():
                return lookups.concept(request, lookups.need(self.catalogue))
            case Search():
                return lookups.search(request, lookups.need(self.catalogue))
        return self.describe()

    def _inspected(self, request: Inspect, pixels: Pixels, row: Row) -> dict[str, Any]:
        effects = None
        if request.by == "effect":
            chosen = operations.chosen_layers(request.layer, self.session.layers)
            among = operations.asked_sub_units(request, chosen, self.catalogue)
            candidates = operations.strongest(row.sub_units, chosen, request.candidates, among=among, magnitude=True)
            target = self._target(request.target, row)
            change = effects_of(
                self.session, self.preprocess.normalise(pixels[None]), self._base, candidates, target, row
            )
            effects = operations.Effects((self.labels or [])[target], change)
        prediction = operations.predict(row, self.labels, 5)
        return {"prediction": prediction} | operations.inspect(
            request,
            row.units,
            row.sub_units,
            layers=self.session.layers,
            image_size=self.preprocess.input_size[1:],
            catalogue=self.catalogue,
            effects=effects,
        )

    def _target(self, name: str | None, row: Row | None) -> int:
        """Number of the class that effects are measured on: the named one, otherwise the predicted one."""
        if self.labels is None:
            raise RequestError("This model has no classes, so there is no effect on one.", "Use 'by': 'activation'.")
        if name is None:
            return 0 if row is None else int(row.output.argmax())
        if name not in self.labels:
            raise RequestError(
                f"Field 'target' is {name!r}: there is no such class.", "Classes are listed by 'describe'.", 404
            )
        return self.labels.index(name)


def _documents(bundle: Bundle) -> dict[str, Any]:
    """The model card and the verdict, for ``describe``; read once, as the bundle's files may be replaced later."""
    card = {"card": bundle.read("README.md").decode(errors="replace")} if bundle.has("README.md") else {}
    return card | ({"verdict": bundle.json("verdict.json")} if bundle.has("verdict.json") else {})


def _labels(bundle: Bundle, classes: int) -> list[str]:
    """Names of the classes, their numbers if unknown; a name that several share gets its number, as an answer's keys
    must differ.
    """
    names = bundle.json("labels.json") if bundle.has("labels.json") else None
    if names is None:
        return [str(i) for i in range(classes)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BundleError(f"{bundle.root}: labels.json must be a list of texts or null.", "Export the bundle again.")
    if len(names) != classes:
        raise BundleError(
            f"{bundle.root}: labels.json names {len(names)} classes, the graph has {classes}.",
            "Export the bundle again.",
        )
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
