"""A client of a served model, on the standard library alone."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from elude.handlers.errors import EludeError, RequestError, UsageError
from elude.handlers.files import parse_json

MAX_ANSWER = 64 * 2**20  # bytes; a server's own limit is lower


class ServerError(EludeError):
    """The server could not answer (5xx); ``status`` is its HTTP code."""

    exit_code = 3

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, "See the server's log.")
        self.status = status


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A server of ours never redirects; whoever does would be sent the key."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _NoAnswer(UsageError):
    """The connection broke or nothing came in time; worth another attempt."""


class Client:
    """Asks one model.

    Args:
        url: the inference address, e.g. ``http://127.0.0.1:8080``.
        token: inference key, or a function that gives the current one; None where the server asks for none.
        model: its name in URLs.
        version: of several served side by side; the default version otherwise.
        timeout: seconds for one attempt, its answer included. TorchServe loses the requests that it is collecting for a
            batch when their worker dies, and never answers them: only the client's own timeout ends
            the wait.
        retries: further attempts after a timeout, a dead worker or an overload. Every operation
            only reads, so asking twice is safe.

    Redirects are not followed, as the key would go along, and an answer of more than ``MAX_ANSWER`` bytes is
    not read.
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str] | None = None,
        *,
        model: str = "elude",
        version: str | None = None,
        timeout: float = 30,
        retries: int = 2,
    ) -> None:
        host = _host(url)
        self.url, self._token, self.timeout, self.retries = url.rstrip("/"), token, timeout, retries
        self._path = quote(model, safe="") + (f"/{quote(version, safe='')}" if version else "")
        # A proxy meant for the outside must not be asked for this machine's own server.
        proxies = [urllib.request.ProxyHandler({})] if _is_loopback(host) else []
        self._opener = urllib.request.build_opener(_NoRedirects, *proxies)

    def predict(self, image: bytes) -> dict[str, float]:
        """``{label: probability}`` of the five most probable classes."""
        return self._object(self.send(f"/predictions/{self._path}", image, "application/octet-stream"))

    def explain(self, image: bytes) -> dict[str, Any]:
        """As ``inspect`` with its defaults, by the explanations route."""
        return self._object(self.send(f"/explanations/{self._path}", image, "application/octet-stream"))

    def inspect(self, image: bytes, **options: Any) -> dict[str, Any]:
        """The sub-units that fire most.

        Options: ``top_k``, ``layer``, ``heat_map`` (``grid``, ``png``, ``none``), ``by``
            (``activation``, ``effect``), ``target`` (label),
        ``candidates``.
        """
        return self.call("inspect", image=_base64(image), **options)

    def steer(self, image: bytes, edits: Sequence[Mapping[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
        """Both predictions; an edit is ``{"id": …, "action": "scale" | "ablate" | "set" | "add", "value": …,
        "patches": …}``.

        ``concept`` instead of ``id`` edits all sub-units of that name; ``preset=NAME`` instead of
        edits applies a named list.
        """
        given = {} if edits is None else {"edits": [dict(edit) for edit in edits]}
        return self.call("steer", image=_base64(image), **given, **options)

    def feature(self, identifier: str, **options: Any) -> dict[str, Any]:
        """One sub-unit: statistics, name, examples."""
        return self.call("feature", id=identifier, **options)

    def concept(self, identifier: str, **options: Any) -> dict[str, Any]:
        """One concept, by identifier or name: its sub-units, examples, histogram, what is like it."""
        return self.call("concept", id=identifier, **options)

    def search(self, query: str, **options: Any) -> dict[str, Any]:
        """Sub-units by name."""
        return self.call("search", query=query, **options)

    def search_by_image(self, image: bytes, **options: Any) -> dict[str, Any]:
        """Sub-units that this image activates most, compared with their strongest probing image."""
        return self.call("search", image=_base64(image), **options)

    def describe(self) -> dict[str, Any]:
        """What is served."""
        return self.call("describe")

    def call(self, op: str, **values: Any) -> dict[str, Any]:
        """Any operation, by name."""
        return self._object(self.ask(json.dumps({"op": op, **values}).encode()))

    def ask(self, body: bytes) -> bytes:
        """Any request written as JSON; the answer as it came."""
        return self.send(f"/predictions/{self._path}", body, "application/json")

    def send(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        """One request; POST with a body, GET without.

        Raises:
            RequestError: the server refused it (4xx), with its message.
            ServerError: the server could not answer it (5xx).
            UsageError: there is no server.
        """
        for attempt in range(self.retries + 1):
            try:
                return self._send(path, body, content_type)
            except (ServerError, _NoAnswer):
                if attempt == self.retries:
                    raise
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, path: str, body: bytes | None, content_type: str) -> bytes:
        headers = {"Content-Type": content_type} if body is not None else {}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token() if callable(self._token) else self._token}"
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        deadline = time.monotonic() + self.timeout
        try:
            try:
                with self._opener.open(request, timeout=self.timeout) as response:
                    return self._read(response, deadline)
            except urllib.error.HTTPError as error:
                with error:
                    message = _message(self._read(error, deadline), error.code)
                # TorchServe reports a worker that was killed (by SIGKILL or for memory) as 413.
                if error.code >= 500 or (error.code == 413 and message == "Worker died."):
                    raise ServerError(message, error.code) from error
                raise RequestError(message, status=error.code) from error
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            kind = UsageError if isinstance(reason, ConnectionRefusedError) else _NoAnswer
            raise kind(f"No answer from {self.url}: {error}.", "Is the server running?") from error

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            answer = parse_json(content)
        except ValueError as error:
            raise UsageError(f"The answer of {self.url} is not JSON: {error}.", "Is it the right server?") from error
        if not isinstance(answer, dict):
            raise UsageError(f"The answer of {self.url} is not a JSON object.", "Is it the right server?")
        return answer

    def _read(self, response: Any, deadline: float) -> bytes:
        """The whole answer, unless it is too large or comes too slowly: each block alone may be in time."""
        content = bytearray()
        while block := response.read1(2**16):
            content += block
            if len(content) > MAX_ANSWER:
                raise UsageError(f"{self.url} sent more than {MAX_ANSWER} bytes.", "Is it the right server?")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the answer was not complete after {self.timeout} s")
        if response.length:  # of what was announced, bytes that never came
            raise http.client.IncompleteRead(bytes(content), response.length)
        return bytes(content)


def _message(content: bytes, status: int) -> str:
    try:
        answer = json.loads(content)
        return str(answer["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {status}: {content[:200].decode(errors='replace')}"


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts.hostname
    except ValueError:  # brackets that do not close, a port that is none
        pass
    raise UsageError(f"{url!r} is not the address of a server.", "Write it as http://127.0.0.1:8080.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
