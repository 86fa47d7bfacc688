"""The one reader of requests, for both front ends: image bytes, our own JSON, HTML forms, and KServe's protocols.

What a body is shows in its bytes, whatever content type it was sent with. KServe V1 is ``{"instances": [REQUEST, …]}``
→ ``{"predictions": [ANSWER, …]}``, V2 (open inference) carries tensors of BYTES, or of numbers where the model takes
arrays; see ``docs/serving.md``. Both may hold
several images; each becomes a request of its own in the same forward pass.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from elude.handlers.errors import RequestError
from elude.handlers.requests.number_tensors import DATATYPES, array_files
from elude.handlers.requests.schema import OPERATIONS, Inspect, Predict, Request
from elude.handlers.requests.validation import base64_bytes, read, shown
from elude.handlers.settings import Limits

PLAIN, V1, V2 = "plain", "v1", "v2"
_IMAGE_FIELDS = ("image", "data", "body")  # of a form; TorchServe's own clients write 'data' or 'body'
_IMAGE_NAMES = ("data", "image_bytes", "b64")  # of KServe's clients and examples, besides 'image'
_OPTIONS = {"op"} | {entry.name for kind in OPERATIONS.values() for entry in fields(kind)} - {"image"}
_TEXTS = {"op"} | {
    entry.name for kind in OPERATIONS.values() for entry in fields(kind) if str(entry.type).split(" ")[0] == "str"
}
_BASE64 = re.compile(rb"(data:[\w/+.-]{1,60};base64,)?[A-Za-z0-9+/=\r\n]{16,}")
_MAX_FIELD = 2**16  # characters of a field of a form that is read as JSON; 64 edits take some 10,000
_MAX_VALUES = 100_000  # of a JSON text: objects and lists take up to 30 times the memory of their text
_MAX_WIDE = 2**20  # bytes of a JSON text beyond which one wide character would make four bytes of each
_WIDE = re.compile(rb"\\u(?!00)")


@dataclass(frozen=True)
class Form:
    """What one HTTP request asks: requests, in which form, and KServe V2's ``id``."""

    requests: tuple[Request, ...]
    kind: str = PLAIN
    id: str | None = None

    def where(self, index: int) -> str:
        """Place of a request for messages; empty for the plain form."""
        return "" if self.kind == PLAIN else f"instances[{index}]: " if self.kind == V1 else f"element {index}: "

    def wrap(self, answers: Sequence[Any], model: str) -> Any:
        """The answers in the form of the question."""
        if self.kind == PLAIN:
            return answers[0]
        if self.kind == V1:
            return {"predictions": list(answers)}
        outputs = _probabilities(answers) if all(isinstance(request, Predict) for request in self.requests) else None
        texts = {
            "name": "answer",
            "datatype": "BYTES",
            "shape": [len(answers)],
            "data": [json.dumps(a, allow_nan=False) for a in answers],
        }
        named = {} if self.id is None else {"id": self.id}
        return {"model_name": model} | named | {"outputs": outputs or [texts]}


def parse(body: Any, *, explain: bool = False, limits: Limits = Limits()) -> Form:
    """From a body to what it asks.

    Args:
        body: bytes, text, or an object that JSON gave; None where the caller sent nothing.
        explain: whether it came by the explanations route, where the operation is ``inspect``.
        limits: see ``Limits``.

    Raises:
        RequestError: the body is none of the forms, or a field does not fit; names the field.
    """
    if isinstance(body, str):
        text = body.removeprefix("\ufeff")
        body = text.encode(errors="replace") if text[:64].lstrip().startswith(("{", "[")) else _base64(text, limits)
    if isinstance(body, (bytes, bytearray)):
        data = bytes(body).removeprefix(codecs.BOM_UTF8)
        if not data[:64].lstrip().startswith((b"{", b"[")):  # no image format begins so
            return _raw(data, explain, limits)
        body = _json(data, limits)
    if not isinstance(body, dict):
        raise RequestError(
            "The request holds neither an image nor a JSON object.", "Send image bytes, or an object with a field 'op'."
        )
    if "instances" in body:
        return _v1(body, explain, limits)
    if "inputs" in body:
        return _v2(body, explain, limits)
    return Form((_request(body, explain, limits),))


def parse_form(form: Mapping[str, Any], *, explain: bool = False, limits: Limits = Limits()) -> Form:
    """From the fields of an HTML form (``multipart/form-data``) to what it asks.

    One field alone is the body, whatever its name. Of several, one named ``image``, ``data`` or ``body`` is the image
    and the others are the fields of a request: numbers and edits as JSON, ``op`` and texts as they are.

    Raises:
        RequestError: as ``parse``; also for a field that would not be read.
    """
    if len(form) == 1 and not form.keys() & _OPTIONS:
        return parse(*form.values(), explain=explain, limits=limits)
    request: dict[str, Any] = {}
    for name, value in form.items():
        field = "image" if name in _IMAGE_FIELDS else name
        if field in request:
            raise RequestError("The form has two images.", "Send each in a request of its own, or use KServe's forms.")
        request[field] = _image(value, limits) if field == "image" else _form_value(field, value)
    return Form((_request(request, explain, limits),))


def _form_value(name: str, value: Any) -> Any:
    """A field of a form as JSON would give it."""
    if not isinstance(value, (bytes, bytearray, str)):
        return value
    text = value if isinstance(value, str) else bytes(value).decode(errors="replace")
    if name in _TEXTS or len(text) > _MAX_FIELD:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _request(body: Mapping[str, Any], explain: bool, limits: Limits) -> Request:
    op = body.get("op", "inspect" if explain else "predict")
    if not isinstance(op, str) or op not in OPERATIONS:
        raise RequestError(f"Field 'op' is {shown(op)}.", f"Use one of {', '.join(OPERATIONS)}.")
    if explain and op != "inspect":
        raise RequestError(f"Field 'op' is {op!r}, but this route explains.", "Send it to the predictions route.")
    return read(OPERATIONS[op], {name: value for name, value in body.items() if name != "op"}, limits)


def _v1(body: Mapping[str, Any], explain: bool, limits: Limits) -> Form:
    _only(body, "instances")
    requests = []
    for i, instance in enumerate(_listed(body["instances"], "instances", limits)):
        value = {"image": instance} if isinstance(instance, str) else _with_image(instance, f"instances[{i}]")
        requests.append(_element(value, f"instances[{i}]", explain, limits))
    return Form(tuple(requests), V1)


def _with_image(instance: Any, where: str) -> Any:
    """An instance whose image stands under ``image``, as itself rather than as ``{"b64": …}``."""
    if not isinstance(instance, dict):
        return instance
    names = [name for name in ("image", *_IMAGE_NAMES) if name in instance]
    if len(names) > 1:
        raise RequestError(f"Field '{where}' has both {names[0]!r} and {names[1]!r}.", "Send one image per instance.")
    value = {name: entry for name, entry in instance.items() if name not in names}
    for name in names:
        image = instance[name]
        value["image"] = image["b64"] if isinstance(image, dict) and set(image) == {"b64"} else image
    return value


def _v2(body: Mapping[str, Any], explain: bool, limits: Limits) -> Form:
    _only(body, "inputs", "id", "parameters", "outputs")
    parameters, name = body.get("parameters") or {}, body.get("id")
    if not isinstance(parameters, dict):
        raise RequestError(f"Field 'parameters' must be an object, not {shown(parameters)}.")
    if name is not None and not (isinstance(name, str) and len(name) <= 200):
        raise RequestError(f"Field 'id' must be a text of at most 200 characters, not {shown(name)}.")
    inputs = body["inputs"]
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError("Field 'inputs' must be a list of one tensor.", 'Send {"name": "image" or "request", …}.')
    tensor = inputs[0]
    if tensor.get("name") not in ("image", "request"):
        raise RequestError(f"Field 'inputs[0].name' is {shown(tensor.get('name'))}.", "Use 'image' or 'request'.")
    kind = tensor.get("datatype")
    numeric = tensor["name"] == "image" and isinstance(kind, str) and kind in DATATYPES
    elements = [{"image": file} for file in array_files(tensor, limits)] if numeric else _texts(tensor, limits)
    requests = [
        _element(parameters | value if isinstance(value, dict) else value, f"inputs[0].data[{i}]", explain, limits)
        for i, value in enumerate(elements)
    ]
    return Form(tuple(requests), V2, name)


def _texts(tensor: Mapping[str, Any], limits: Limits) -> list[Any]:
    """The elements of a tensor of BYTES: images, or requests."""
    if tensor.get("datatype") != "BYTES":
        raise RequestError(
            f"Field 'inputs[0].datatype' is {shown(tensor.get('datatype'))}.",
            f"Use 'BYTES': base64 images, or requests as JSON text; for images of many channels also "
            f"{', '.join(DATATYPES)}.",
        )
    data = _listed(tensor.get("data"), "inputs[0].data", limits)
    if tensor.get("shape") != [len(data)]:
        raise RequestError(
            f"Field 'inputs[0].shape' is {shown(tensor.get('shape'))}; the data has {len(data)} elements.",
            f"Send [{len(data)}].",
        )
    for i, element in enumerate(data):
        if not isinstance(element, str):
            raise RequestError(f"Field 'inputs[0].data[{i}]' must be text, not {shown(element)}.")
    if tensor["name"] == "image":
        return [{"image": element} for element in data]
    return [_json(element.encode(errors="replace"), limits) for element in data]


def _element(value: Any, where: str, explain: bool, limits: Limits) -> Request:
    if not isinstance(value, dict):
        raise RequestError(f"Field '{where}' must be an image or a request, not {shown(value)}.")
    try:
        return _request(value, explain, limits)
    except RequestError as error:
        raise RequestError(f"{where}: {error.message}", error.remedy, error.status) from error


def _listed(value: Any, where: str, limits: Limits) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise RequestError(f"Field '{where}' must be a list of at least one.")
    if len(value) > limits.max_instances:
        raise RequestError(f"Field '{where}' has {len(value)} entries; at most {limits.max_instances} are allowed.")
    return value


def _only(body: Mapping[str, Any], *known: str) -> None:
    for name in body:
        if name not in known:
            raise RequestError(f"Field {shown(name)} is unknown.", f"Known fields: {', '.join(known)}.")


def _probabilities(answers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """V2's tensors of labels and probabilities (images, classes);

    None if the rows differ in length, or are embeddings or values.
    """
    widths = {len(answer) for answer in answers}
    if len(widths) != 1 or any(kind in answer for answer in answers for kind in ("embedding", "values")):
        return None
    shape = [len(answers), widths.pop()]
    labels = {
        "name": "labels",
        "datatype": "BYTES",
        "shape": shape,
        "data": [label for answer in answers for label in answer],
    }
    values = {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": shape,
        "data": [p for answer in answers for p in answer.values()],
    }
    return [labels, values]


def _raw(data: bytes, explain: bool, limits: Limits) -> Form:
    image = _image(data, limits)
    return Form((Inspect(image) if explain else Predict(image),))


def _image(value: Any, limits: Limits) -> Any:
    """An encoded image, from its bytes or from base64; anything that is not bytes stays what it is."""
    if not isinstance(value, (bytes, bytearray)):
        return value
    data = bytes(value)
    if _BASE64.fullmatch(data[:256]):
        data = _base64(data.decode(errors="replace"), limits)
    if len(data) > limits.max_bytes:
        raise RequestError(f"The image has {len(data)} bytes; at most {limits.max_bytes} are allowed.", status=413)
    return data


def _json(data: bytes, limits: Limits) -> Any:
    """JSON; refused beforehand if holding it would take many times the memory of its text."""
    if len(data) > 2 * limits.max_bytes + 2**16:
        raise RequestError(
            f"The request has {len(data)} bytes, more than an image of {limits.max_bytes} bytes needs.", status=413
        )
    if (values := data.count(b",")) > _MAX_VALUES:
        raise RequestError(
            f"The request has {values} values; at most {_MAX_VALUES} are allowed.",
            "Send an array as the bytes of a .npy file.",
            413,
        )
    if len(data) > _MAX_WIDE and (not data.isascii() or _WIDE.search(data)):
        raise RequestError(f"A request of more than {_MAX_WIDE} bytes must be ASCII.", "Send the texts apart.", 413)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The request is not JSON: {error}.") from error


def _base64(text: str, limits: Limits) -> bytes:
    try:
        return base64_bytes(text, limits.max_bytes)
    except OverflowError as error:
        raise RequestError(
            f"The image is larger than the {limits.max_bytes} bytes that are allowed.", status=413
        ) from error
    except ValueError as error:
        raise RequestError(f"The text is neither JSON nor a base64 image: {error}.") from error
