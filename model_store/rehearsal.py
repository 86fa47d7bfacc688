"""The last check of an admission: the bundle is opened as a server opens it, and answers.

A verdict is about measurements; a preset whose value no request may have, or a graph that this runtime cannot
load, passes a gate and fails its first user.
"""

from __future__ import annotations

import base64
import io
import json

from PIL import Image

from elude.handlers.admission.admission import admit
from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import GateError
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service


def require_answers(bundle: Bundle) -> None:
    """One prediction, one description, and one steered prediction with each preset that the verdict let pass.

    Args:
        bundle: verified, with its verdict.

    Raises:
        GateError: a request was refused; names it, with the reason.
        BundleError: the bundle cannot be opened for serving.
    """
    service = Service(
        bundle, GraphSession.of(bundle), admission=admit(bundle, Requirements(verdict=True, free_steering=False))
    )
    image = _image(service.preprocess.input_size[1:])
    calls = {"a prediction": Call(image), "its description": Call(b"", describe=True)}
    for name in sorted(service.admission.presets):
        body = {"op": "steer", "image": base64.b64encode(image).decode(), "preset": name}
        calls[f"preset {name!r}"] = Call(json.dumps(body).encode())
    for what, call in calls.items():
        answer = service.answer([call])[0]
        if answer.status != 200:
            raise GateError(
                f"The bundle cannot be served: asked for {what}, it answers {answer.status}: {_message(answer.body)}",
                "Correct it, and judge it again.",
            )


def _image(size: tuple[int, ...]) -> bytes:
    """A PNG with every brightness, of the model's own size."""
    height, width = size
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _message(body: bytes) -> str:
    content = json.loads(body)
    return str(content.get("message", content)) if isinstance(content, dict) else str(content)
