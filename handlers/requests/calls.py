"""A request on its way through the service, from the call as it came to the answer as it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.answers.json_writing import compact
from elude.handlers.errors import RequestError
from elude.handlers.requests.edits import Edit
from elude.handlers.requests.forms import Form
from elude.handlers.requests.schema import Request
from elude.handlers.requests.steering import Steered


@dataclass(frozen=True)
class Call:
    """One HTTP request as it came: its body, and the route's meaning."""

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
class Work:
    """One request of a call: the image, the edits of its rows of the batch, and the first row."""

    request: Request
    pixels: NDArray[np.uint8] | None = None
    rows: list[tuple[Edit, ...]] = field(default_factory=list)
    steered: Steered | None = None
    first: int = 0


@dataclass
class Asked:
    """What a call asks: its form and requests, or the error that ends it."""

    operation: str = "invalid"
    form: Form | None = None
    works: list[Work] = field(default_factory=list)
    error: RequestError | None = None


def refusal(error: RequestError, operation: str) -> Answer:
    """The answer that tells an error."""
    body = {"code": error.status, "type": "RequestError" if error.status < 500 else "ModelError", "message": str(error)}
    return Answer(error.status, compact(body), operation)
