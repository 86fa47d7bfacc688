"""What a web server is to serve, from the words that name it: bundles and archives, with a name and a version each."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import MANIFEST
from elude.handlers.errors import GateError, UsageError
from elude.handlers.torchserve.archives import require_name
from elude.handlers.torchserve.check_archive import read_settings, take_in
from elude.handlers.web.plan import Plan, PlannedVersion, planned


def plan_of(
    words: Sequence[str],
    folder: Path,
    requirements: Requirements,
    *,
    model: str = "elude",
    version: str = "1.0",
    labels: Sequence[str] = (),
) -> Plan:
    """The plan of bundles and archives.

    Args:
        words: ``[NAME[@VERSION]=]PATH`` each; an archive has a name and version of its own.
        folder: a private one, for checked copies of archives.
        requirements: what they must fulfil.
        model: name of bundles without one.
        version: of bundles without one.
        labels: ``NAME/LABEL=VERSION`` each.

    Raises:
        UsageError: a path, name, version or label cannot be used.
        GateError: listed archives only may be served, and this is none.
        BundleError: a bundle cannot be read.
    """
    versions: list[PlannedVersion] = []
    for number, word in enumerate(words):
        path, name, own_version = _parts(word, model, version)
        if path.is_file():
            versions.append(unpacked(path, folder / str(number), requirements))
        else:
            versions.append(_bundle(path, name, own_version, requirements))
    served = [(entry.model, entry.version) for entry in versions]
    if twice := next((entry for entry in served if served.count(entry) > 1), None):
        raise UsageError(
            f"{' '.join(twice)} is there twice.", "Give one of them another version: NAME@VERSION=BUNDLE, e.g. m@2.0=b."
        )
    fulfilled = replace(requirements, verdict=requirements.any, archives=None)  # archives were compared just now
    return Plan(_labelled(versions, labels), fulfilled)


def unpacked(archive: Path, folder: Path, requirements: Requirements, labels: tuple[str, ...] = ()) -> PlannedVersion:
    """The bundle in an archive, of which every byte is checked first, in the new folder ``folder``.

    The archive's code is not run: this installation's is.
    """
    folder.mkdir(mode=0o700)
    copy = take_in(archive, folder / "archive.mar", requirements)
    _, settings = read_settings(copy.path)
    with zipfile.ZipFile(copy.path) as opened:
        opened.extractall(folder, [name for name in opened.namelist() if name.startswith("bundle/")])
    copy.path.unlink()
    return planned(folder / "bundle", copy.name, copy.version, settings.to_json(), labels)


def _parts(word: str, model: str, version: str) -> tuple[Path, str, str]:
    """Path, name and version of ``[NAME[@VERSION]=]PATH``."""
    name, equals, path = word.partition("=")
    if not equals or Path(word).exists():
        return Path(word), model, version
    name, at, own_version = name.partition("@")
    return Path(path), name, own_version if at else version


def _bundle(path: Path, name: str, version: str, requirements: Requirements) -> PlannedVersion:
    require_name(name, version)
    if not path.is_dir():
        raise UsageError(f"There is no bundle {str(path)!r}.", "Make one with 'elude export'.")
    if requirements.archives is not None:
        raise GateError(
            "This server may load listed archives only, and was given a bundle.",
            "Require a verdict or a signature instead, or serve the archive.",
        )
    if not (path / MANIFEST).is_file():
        raise UsageError(f"{path} is not a bundle: it has no {MANIFEST}.", "Make one with 'elude export'.")
    return planned(path, name, version)


def _labelled(versions: Sequence[PlannedVersion], labels: Sequence[str]) -> tuple[PlannedVersion, ...]:
    given: dict[tuple[str, str], tuple[str, ...]] = {}
    seen: Mapping[tuple[str, str], str] = {}
    for text in labels:
        name, _, version = text.partition("=")
        model, _, label = name.partition("/")
        require_name(label, "1")
        if (model, version) not in {(entry.model, entry.version) for entry in versions}:
            raise UsageError(f"Label {text!r} names no served version.", "Write it as NAME/LABEL=VERSION.")
        if (model, label) in seen:
            raise UsageError(f"Label {label!r} of {model} is there twice.", "A label is of one version.")
        seen = {**seen, (model, label): version}
        given[model, version] = (*given.get((model, version), ()), label)
    return tuple(replace(entry, labels=given.get((entry.model, entry.version), ())) for entry in versions)
