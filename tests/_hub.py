"""A stand-in of the Hugging Face Hub: the part of its HTTP interface that pushing and fetching a model need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Repositories with the files of each commit, newest last; ``url`` is the endpoint."""

    url: str = ""
    repositories: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {"hf_good"})
    requests: list[str] = field(default_factory=list)

    def files(self, repository: str) -> dict[str, bytes]:
        return self.repositories[repository][-1]

    def change(self, repository: str, **files: bytes) -> None:
        """A commit of somebody else; ``_`` of a name stands for a dot."""
        changed = {name.replace("_", ".", 1): data for name, data in files.items()}
        self.repositories[repository].append(self.files(repository) | changed)


def oid(number: int) -> str:
    """The commit's hash."""
    return hashlib.sha1(str(number).encode()).hexdigest()


class Requests(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._resolve(with_body=False)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/api/models/") and "/tree/" in path:
            repository = path.removeprefix("/api/models/").partition("/tree/")[0]
            if repository not in self.hub.repositories:
                return self._missing("RepoNotFound")
            files = self.hub.files(repository).items()
            return self._json(
                [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files]
            )
        return self._resolve(with_body=True)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunks()
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(path)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.hub.tokens:
            return self._json({"error": "Invalid credentials"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'ada'}/{asked['name']}"
            if name in self.hub.repositories:
                return self._json({"error": "exists", "url": f"{self.hub.url}/{name}"}, 409)
            self.hub.repositories[name] = [{".gitattributes": b""}]
            self.hub.private[name] = asked.get("private") is True or asked.get("visibility") == "private"
            return self._json({"url": f"{self.hub.url}/{name}"})
        repository, _, rest = path.removeprefix("/api/models/").rpartition("/preupload/")
        if repository:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        repository, _, rest = path.removeprefix("/api/models/").rpartition("/commit/")
        return self._commit(repository, rest, body)

    def _commit(self, repository: str, branch: str, body: bytes) -> None:
        files = dict(self.hub.files(repository))
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                del files[entry["value"]["path"]]
        self.hub.repositories[repository].append(files)
        number = len(self.hub.repositories[repository]) - 1
        self._json({"commitUrl": f"{self.hub.url}/{repository}/commit/{oid(number)}", "commitOid": oid(number)})

    def _resolve(self, *, with_body: bool) -> None:
        """A file of a revision: ``/OWNER/NAME/resolve/REVISION/FILE``."""
        repository, _, rest = unquote(urlsplit(self.path).path).strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repository not in self.hub.repositories:
            return self._missing("RepoNotFound")
        commits = self.hub.repositories[repository]
        numbers = {"main": len(commits) - 1} | {oid(number): number for number in range(len(commits))}
        if revision not in numbers:
            return self._missing("RevisionNotFound")
        data = commits[numbers[revision]].get(name)
        if data is None:
            return self._missing("EntryNotFound")
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", oid(numbers[revision]))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _chunks(self) -> bytes:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return body

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Requests,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
