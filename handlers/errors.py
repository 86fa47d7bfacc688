"""The errors of the project: each says what was wrong and what to do, and carries the exit code of the command line."""

from __future__ import annotations

from typing import Any, ClassVar


class EludeError(Exception):
    """Base of all errors a user can meet.

    Args:
        message: what was wrong, naming the argument and the value it got.
        remedy: what to do about it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy


class UsageError(EludeError):
    """An argument, a file or a configuration cannot be used as given."""


class ImageError(EludeError):
    """An image could not be read; names the image."""


class BundleError(EludeError):
    """A bundle is incomplete, was changed, or is of an unknown version; names the file."""


class UnsupportedLayerError(EludeError):
    """A layer or model cannot be split; says why."""


class EquivalenceError(EludeError):
    """The rewritten model does not equal the original; ``report`` holds the numbers."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "", report: dict[str, Any] | None = None) -> None:
        super().__init__(message, remedy)
        self.report = report or {}


class GateError(EludeError):
    """The gate's verdict forbids what was asked."""

    exit_code = 1


class EvaluationError(EludeError):
    """A measurement could not be made."""

    exit_code = 3


class RequestError(EludeError):
    """One request cannot be answered; ``status`` is its HTTP code. Never hurts a neighbour in the batch."""

    def __init__(self, message: str, remedy: str = "", status: int = 400) -> None:
        super().__init__(message, remedy)
        self.status = status
