"""Archives as an attacker makes them: of a right one, with code of his own in some place; the code leaves a trace."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import marshal
import zipfile
from collections.abc import Mapping
from pathlib import Path

from elude.handlers.torchserve.archives import bytes_source, write_archive
from elude.handlers.torchserve.handler import CONTENTS, contents_bytes

MANIFEST, CONFIG, HANDLER = "MAR-INF/MANIFEST.json", "model-config.yaml", "elude_handler.py"


def entries(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as content:
        return {name: content.read(name) for name in content.namelist()}


def write(target: Path, files: Mapping[str, bytes]) -> Path:
    """In the form of a right archive: else it would be refused for that, whatever it holds."""
    write_archive(target, {name: bytes_source(content) for name, content in files.items()})
    return target


def listed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files with a ``contents.json`` that fits."""
    others = {name: content for name, content in files.items() if name != CONTENTS}
    return others | {
        CONTENTS: contents_bytes({name: hashlib.sha256(data).hexdigest() for name, data in others.items()})
    }


def code(trace: Path) -> bytes:
    """A module that leaves a trace when it is imported, and is a handler that answers."""
    return f"open({str(trace)!r}, 'w').close()\nclass Handler:\n    handle = lambda *_: ['1']\n".encode()


def compiled(source: bytes) -> bytes:
    """The ``.pyc`` of a source that Python loads without comparing it with anything (PEP 552, unchecked hash)."""
    return (
        importlib.util.MAGIC_NUMBER
        + (1).to_bytes(4, "little")
        + bytes(8)
        + marshal.dumps(compile(source, "service.py", "exec"))
    )


def cached(module: str) -> str:
    """Where Python looks for the compiled form of ``elude/handlers/service.py``."""
    folder, _, name = module.rpartition("/")
    tag = Path(importlib.util.cache_from_source("x.py")).name.removeprefix("x.")
    return "/".join(filter(None, (folder, "__pycache__", f"{name.removesuffix('.py')}.{tag}")))


def with_manifest(files: Mapping[str, bytes], **changes: object) -> dict[str, bytes]:
    """The same files, listed, with other values in TorchServe's manifest: ``runtime``, or a key of its ``model``."""
    manifest = json.loads(files[MANIFEST])
    for name, value in changes.items():
        (manifest if name == "runtime" else manifest["model"])[name] = value
    return listed({**files, MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode()})  # as package writes it


def with_hidden_entry(archive: Path, target: Path, name: str, content: bytes) -> Path:
    """An archive with an entry that only who reads it from its start sees, as Java does.

    The entry's header and content lie before the table of contents at the end, which does not name it.
    """
    alone = target.with_suffix(".alone")
    with zipfile.ZipFile(alone, "w") as one:
        one.writestr(name, content)
        table = one.start_dir
    hidden = alone.read_bytes()[:table]
    alone.unlink()
    with zipfile.ZipFile(archive) as right:
        start = right.start_dir
    data = archive.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    moved = (start + len(hidden)).to_bytes(4, "little")
    target.write_bytes(data[:start] + hidden + data[start:end] + data[end : end + 16] + moved + data[end + 20 :])
    return target
