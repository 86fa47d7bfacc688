"""What a server, or a store, asks of a bundle before it serves it.

It comes from the server's configuration, never from the archive: whoever can put an archive in
place must not be able to lower the bar.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elude.handlers.admission.trust import TrustedKey, read_keys
from elude.handlers.errors import UsageError
from elude.handlers.files import read_json

ENVIRONMENT = "ELUDE_ADMISSION"  # path of the requirements file


@dataclass(frozen=True)
class Requirements:
    """What a server, or a store, asks of a bundle.

    Attributes:
        verdict: it must have passed the gate; ``signature`` includes that.
        signature: one of ``keys`` must have signed it.
        policies: sha256 of the policies that count; empty for any. Else a lax policy of one's own would do.
        archives: sha256 of the ``contents.json`` of the archives that may be loaded, None for any.
            That file names every byte of an archive, the code included.
        free_steering: whether requests may bring edits of their own, on which no gate can rule.
            None: only where nothing is required.
    """

    verdict: bool = False
    signature: bool = False
    keys: tuple[TrustedKey, ...] = ()
    policies: tuple[str, ...] = ()
    archives: tuple[str, ...] | None = None
    free_steering: bool | None = None

    @property
    def any(self) -> bool:
        """Whether a bundle without a verdict is refused."""
        return self.verdict or self.signature or bool(self.policies) or self.archives is not None

    @property
    def steers_freely(self) -> bool:
        """Whether requests may bring edits of their own."""
        return not self.any if self.free_steering is None else self.free_steering

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Requirements:
        """From the file that ``ELUDE_ADMISSION`` names; nothing is required where it is not set.

        Raises:
            UsageError: it cannot be read, or is not of this form. A server must not start then.
        """
        path = (os.environ if environment is None else environment).get(ENVIRONMENT)
        if path is None:
            return cls()
        if not path.strip():  # a variable that was to be filled in: nothing may be served by accident
            raise UsageError(f"{ENVIRONMENT} is set but empty.", "Name a requirements file, or unset it.")
        try:
            return cls.from_json(read_json(path))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{ENVIRONMENT}={path} cannot be read: {error}.", "Name a file as docs/store.md describes it."
            ) from error

    @classmethod
    def from_json(cls, data: Any) -> Requirements:
        """From the content of a requirements file; unknown keys are refused, as a misspelt one would require
        nothing.
        """
        remedy = "See docs/store.md for its form."
        known = {
            "schema_version",
            "require_verdict",
            "require_signature",
            "policies",
            "trust",
            "archives",
            "free_steering",
        }
        if not isinstance(data, dict) or not set(data) <= known or data.get("schema_version") != 1:
            raise UsageError(
                f"The admission requirements are not of schema_version 1 with keys out of {', '.join(sorted(known))}.",
                remedy,
            )
        verdict, signature = data.get("require_verdict", True), data.get("require_signature", False)
        free = data.get("free_steering")
        if type(verdict) is not bool or type(signature) is not bool or (free is not None and type(free) is not bool):
            raise UsageError("require_verdict, require_signature and free_steering are true or false.", remedy)
        policies = _hashes(data.get("policies", []), "policies")
        archives = None if data.get("archives") is None else _hashes(data["archives"], "archives")
        keys = read_keys(data.get("trust", []))
        if signature and not keys:
            raise UsageError("A signature is required and no key is trusted.", "Add the public key to 'trust'.")
        return cls(verdict, signature, keys, policies, archives, free)

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` reads it."""
        content = {"schema_version": 1, "require_verdict": self.verdict, "require_signature": self.signature}
        lists = {"policies": list(self.policies), "trust": [key.to_json() for key in self.keys]}
        return (
            content
            | lists
            | {"archives": None if self.archives is None else list(self.archives), "free_steering": self.free_steering}
        )


def _hashes(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise UsageError(f"{name} must be a list of sha256.", "See docs/store.md for its form.")
    return tuple(value)
