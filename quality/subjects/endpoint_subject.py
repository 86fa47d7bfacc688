"""A running server as a subject: what is measured is what its users get. Loads no torch."""

from __future__ import annotations

import base64
import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elude.handlers.errors import EvaluationError, UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.torchserve.client import Client
from elude.quality.subjects.subject import Images, Outputs, check_outputs


class EndpointSubject:
    """Sends each image as a PNG and reads the probabilities of all classes.

    The server resizes and crops what it gets. So the pixels are framed by their mirror image up to
    the size that it would resize to: resizing then changes nothing, and its crop cuts exactly the
    pixels out. Values are rounded to 8 bits, which clean and corrupted images are already and
    adversarial ones are not.

    Args:
        client: of the model.
        preprocess: what the served model does with an image.
        labels: the names of its classes in order.
        parameters: how many it has, if known.
        sha256: of the served bundle, if known.
        connections: requests under way at once, so that the server can put them into batches.

    Raises:
        UsageError: the model takes arrays instead of pictures.
    """

    kind = "endpoint"

    def __init__(
        self,
        client: Client,
        preprocess: Preprocess,
        labels: tuple[str, ...],
        *,
        name: str | None = None,
        parameters: int | None = None,
        sha256: str | None = None,
        connections: int = 4,
    ) -> None:
        if not preprocess.takes_pictures:
            raise UsageError(
                f"{name or client.url} takes arrays of {preprocess.channels} channels, and a server is measured by "
                "pictures.",
                "Evaluate its bundle.",
            )
        self._client, self._connections = client, connections
        self.preprocess = preprocess
        self.name = name or client.url
        self.labels: tuple[str, ...] | None = labels
        self._place = {label: i for i, label in enumerate(labels)}
        self.parameters = parameters
        self.sha256 = sha256

    def outputs(self, pixels: Images) -> Outputs:
        with ThreadPoolExecutor(self._connections) as pool:
            rows = list(pool.map(self._probabilities, np.rint(np.moveaxis(pixels, 1, -1) * 255).astype(np.uint8)))
        return check_outputs(np.stack(rows), len(pixels), self.name)

    def _probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        file = io.BytesIO()
        Image.fromarray(framed(pixels, self.preprocess)).save(file, "PNG")
        image = base64.b64encode(file.getvalue()).decode()
        answer = self._client.call("predict", image=image, top_k=len(self._place))
        unknown = [label for label in answer if label not in self._place]
        if unknown or len(answer) != len(self._place):
            such = f", such as {unknown[0]}," if unknown else ""
            raise EvaluationError(
                f"{self.name} answered {len(answer)} classes{such} and not the {len(self._place)} known ones.",
                "Give the labels of the model that is served.",
            )
        row = np.zeros(len(self._place), np.float32)
        for label, probability in answer.items():
            row[self._place[label]] = probability
        return row


def framed(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """uint8 (H', W', 3): ``pixels`` (H, W, 3) in a frame that the server's resize leaves alone and its crop takes
    off.
    """
    height, width = pixels.shape[:2]
    extra_h, extra_w = (math.floor(side / preprocess.crop_pct) - side for side in (height, width))
    top, left = round(extra_h / 2), round(extra_w / 2)
    return np.pad(pixels, ((top, extra_h - top), (left, extra_w - left), (0, 0)), mode="symmetric")
