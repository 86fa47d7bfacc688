"""The files that an ONNX model takes weights from, found without loading it.

ONNX Runtime opens whatever path a model names, and some versions also one outside the model's folder, whose
bytes no manifest hashes. So the names are read first, from the few fields of the protobuf that lead to them
(onnx.proto, ``TensorProto.external_data``), and everything but a plain file beside the model is refused.
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elude.handlers.bundle.bundle import MODEL, MODEL_DATA, Bundle
from elude.handlers.errors import BundleError
from elude.handlers.files import copy_plain, open_plain

# Message → number of a field → the message that it holds. Whatever is not here holds no tensors.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # wire types
_LONGEST_VARINT = 10  # bytes


def check_external_data(model: Path, beside: Path | None = None) -> None:
    """Require that each file that a model takes weights from is a plain file beside it, or in the folder ``beside``.

    Raises:
        BundleError: a name is absolute, has folders, or is not a plain file, or the model is no protobuf.
    """
    for name in sorted(external_files(model)):
        if not name or "/" in name or "\\" in name or name in (".", ".."):
            raise BundleError(
                f"{model.name} takes weights from {name!r}, which is not a file beside it.",
                "Export the model again, with its weights in one file beside it.",
            )
        try:
            open_plain((beside or model.parent) / name, links=False).close()
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{model.name} takes weights from {name!r}, which cannot be used: {error}.",
                "Copy it beside the model; in a bundle only model.onnx.data may hold weights.",
            ) from error


@contextmanager
def private_model(source: Path | Bundle) -> Iterator[tuple[Path, str]]:
    """A private copy of a model with the files that it takes weights from, and the sha256 of what was copied.

    The hash is the model file's where it holds all weights itself, else one over the hashes of all its files.

    Args:
        source: a model file, or a bundle, whose files are compared with its manifest as they are copied.

    Raises:
        BundleError: there is no such file, it is not as the manifest says, or it names files outside its folder.
        OSError: a file cannot be copied.
    """
    if isinstance(source, Bundle):
        present = [name for name in (MODEL, MODEL_DATA) if source.has(name)] or [MODEL]
        with source.private(*present) as folder:
            check_external_data(folder / MODEL)
            yield folder / MODEL, _joint_sha256({name: source.manifest.files[name] for name in present})
        return
    if source.is_dir():
        raise BundleError(f"{source} is a folder.", f"Name its {MODEL}: '{source / MODEL}'.")
    if not source.is_file():
        raise BundleError(f"{source} does not exist.", "Name a bundle or its model.onnx.")
    with tempfile.TemporaryDirectory(prefix="elude-model-") as place:
        copy = Path(place, source.name)
        hashes = {source.name: copy_plain(source, copy, links=True)}
        check_external_data(copy, beside=source.parent)
        for name in sorted(external_files(copy)):
            hashes[name] = copy_plain(source.with_name(name), copy.with_name(name))
        yield copy, _joint_sha256(hashes)


def _joint_sha256(hashes: dict[str, str]) -> str:
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()


def external_files(model: Path) -> set[str]:
    """The names of the files that tensors of a model lie in, as written there.

    Raises:
        BundleError: it is no protobuf.
        OSError: it cannot be read.
    """
    with open_plain(model) as file:
        if not file.seek(0, 2):
            return set()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return set(_locations(content))
            except (IndexError, ValueError) as error:
                raise BundleError(
                    f"{model.name} cannot be opened: it is not an ONNX model: {error}.", "Export the model again."
                ) from error


def _locations(content: mmap.mmap) -> Iterator[str]:
    waiting = [("model", 0, len(content))]
    while waiting:
        kind, begin, end = waiting.pop()
        for number, first, last in _parts(content, begin, end):
            child = _FIELDS[kind].get(number)
            if child == "entry":
                entry = {number: content[a:b] for number, a, b in _parts(content, first, last)}
                if entry.get(1) == b"location":
                    yield entry.get(2, b"").decode()
            elif child is not None:
                waiting.append((child, first, last))


def _parts(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field of a message that holds bytes: a text or another message."""
    while at < end:
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(content, at)
        elif kind == _BYTES:
            size, at = _varint(content, at)
            if size > end - at:
                raise ValueError("a field is longer than what holds it")
            yield (tag & 0xFFFFFFFF) >> 3, at, at + size
            at += size
        elif kind in (_FIXED_64, _FIXED_32):
            at += 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(_LONGEST_VARINT):
        byte = content[at + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError("a number without an end")
