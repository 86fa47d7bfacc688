"""A request on its way through the service, from the call as it came to the answer as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elude.handlers.bundle.edits import Edit
from elude.handlers.errors import RequestError
from elude.handlers.images.read_pixels import Pixels
from elude.handlers.json_writing import compact
from elude.handlers.requests.forms import Form
from elude.handlers.requests.schema import Request
from elude.handlers.requests.steering import Steered


@dataclass(frozen=True)
class Call:
    """One HTTP request as it came, and what its route means.

    Attributes:
        body: bytes, text, or what JSON gave; None where the caller sent nothing.
        explain: whether it came by a route that explains.
        describe: whether it came by a route that describes the model.
        form: the fields of an HTML form, instead of a body.
    """

    body: Any
    explain: bool = False
    describe: bool = False
    form: Mapping[str, Any] | None = None

    @classmethod
    def of_row(cls, row: Mapping[str, Any], *, explain: bool = False, describe: bool = False) -> Call:
        """From a row of TorchServe's batch: a body under ``data`` or ``body``, or the fields of a form."""
        if not row.keys() - {"data", "body"} and len(row) < 2:
            return cls(row.get("data", row.get("body")), explain, describe)
        return cls(None, explain, describe, row)


@dataclass(frozen=True)
class Answer:
    """One answer: HTTP status, JSON body, and the operation for metrics (``invalid`` if it was not understood)."""

    status: int
    body: bytes
    operation: str


@dataclass
class Work:
    """One request of a call: the image, the edits of its rows of the batch, and the first row."""

    request: Request
    pixels: Pixels | None = None
    rows: list[tuple[Edit, ...]] = field(default_factory=list)
    steered: Steered | None = None
    first: int = 0


@dataclass
class Job:
    """A call on its way: its form and requests, or the error that ends it."""

    operation: str = "invalid"
    form: Form | None = None
    works: list[Work] = field(default_factory=list)
    error: RequestError | None = None


def refusal(error: RequestError, operation: str) -> Answer:
    """The answer that reports an error."""
    body = {"code": error.status, "type": "RequestError" if error.status < 500 else "ModelError", "message": str(error)}
    return Answer(error.status, compact(body), operation)
