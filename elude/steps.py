"""The steps from a model to an admitted release, as functions that take paths or objects; ``elude.export`` and its
neighbours. Each is a thin layer over the function of the same name further down, as the command line is.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from elude.addresses import open_bundle
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.handlers.settings import Settings
from elude.progress import shown_progress

if TYPE_CHECKING:
    from torch import nn

    from elude.exporter.export.export_settings import ExportSettings
    from elude.exporter.images import ImageSource
    from elude.exporter.models.loaded import LoadedModel
    from elude.exporter.progress import StepProgress
    from elude.handlers.images.preprocess import Preprocess
    from elude.model import Model
    from elude.model_store.store import Store
    from elude.model_store.versions import Version
    from elude.quality.dimensions.quality_json import QualityReport
    from elude.quality.gate.verdict import Verdict
    from elude.quality.gate.waivers import Waiver
    from elude.quality.policies.policy import Policy
    from elude.quality.scores.pool import Pool
    from elude.quality.subjects.subject import Subject
    from elude.quality.suites.suite import Suite

PathLike: TypeAlias = str | os.PathLike[str]
BundleLike: TypeAlias = "PathLike | Bundle | Model | Version"


def export(
    model: PathLike | nn.Module | LoadedModel,
    images: PathLike | ImageSource | None = None,
    layers: str | Sequence[str] = "last",
    out: PathLike | None = None,
    settings: ExportSettings | Mapping[str, Any] | None = None,
    *,
    evaluation: PathLike | ImageSource | None = None,
    overwrite: bool = False,
    progress: StepProgress | bool = True,
    engine: str = "local",
    workers: int = 0,
    preprocess: Preprocess | Mapping[str, Any] | None = None,
    labels: Sequence[str] | Mapping[int, str] | None = None,
    kind: str | None = None,
    output: str | int | None = None,
    pool: str | None = None,
    like: PathLike | None = None,
) -> Bundle:
    """Split a model's units into sub-units, check that nothing changed, and write the bundle.

    Args:
        model: ``embedded``, a name of timm, ``hf-hub:OWNER/NAME``, ``torchvision:NAME``, ``package.module:factory``, a
            folder of timm or transformers, a ``.onnx`` file, or any ``torch.nn.Module``; the latter two need
            ``preprocess``, and ``labels`` or ``kind``.
        images: probing images: a folder, a ``.tar``, a list, ``hf:OWNER/NAME``; the embedded model brings its own.
        layers: a glob over module paths, or several; ``last`` is the last layer that can be split.
        out: the bundle's folder.
        settings: how to split: ``ExportSettings``, or a mapping of some of its fields.
        evaluation: held-out images for the MS-Score.
        overwrite: replace a bundle at ``out``.
        progress: whether to show progress, or a function that is called with (step, done, total).
        engine: ``local``, or ``ray``.
        workers: processes that cluster; 0 for threads of this process.
        preprocess: how images become the model's input, where its source does not say so.
        labels: names of the outputs, in order or by number.
        kind: what the outputs mean: ``classes``, ``multi-label``, ``regression`` or ``embedding``.
        output: of a model with several outputs, the name or position of the one to keep.
        pool: of an output with places: ``mean`` over them, or the ``first`` token.
        like: an older bundle whose identifiers are carried over.

    Raises:
        UsageError, ImageError, UnsupportedLayerError: the arguments cannot be used; nothing is left.
        EquivalenceError: the rewritten model does not equal the original; nothing is left.

    Example:
        >>> elude.export("embedded", out="build/bundle")  # doctest: +SKIP
    """
    from elude.exporter.export.export_settings import ExportSettings
    from elude.exporter.export.pipeline import export as run

    if out is None:
        raise UsageError("The bundle has no place.", "Write elude.export(model, images, out='build/bundle').")
    with shown_progress(progress) as shown:
        return run(
            Path(model) if isinstance(model, os.PathLike) else model,
            _text(images),
            layers if isinstance(layers, str) else ",".join(layers),
            Path(out),
            settings if isinstance(settings, ExportSettings) else _settings(settings or {}),
            evaluation=_text(evaluation),
            overwrite=overwrite,
            progress=shown,
            engine=engine,
            workers=workers,
            preprocess=preprocess,
            labels=labels,
            kind=kind,
            output=output,
            pool=pool,
            like=None if like is None else Path(like),
        )


def evaluate(
    subject: BundleLike | Subject,
    suite: PathLike | Suite | None = None,
    *,
    quick: bool = False,
    dimensions: Sequence[str] | None = None,
    budget: int | None = None,
    seed: int = 0,
    pool: Pool | Sequence[PathLike] | None = None,
    threads: int = 1,
    workers: int = 0,
    engine: str = "local",
    cache: PathLike | None = None,
    outputs: str | None = None,
    described_by: PathLike | None = None,
    token: str | None = None,
    published: bool = False,
    device: str = "cpu",
    precision: str = "float32",
    model: str | nn.Module | LoadedModel | None = None,
    answers: bool = True,
    save: bool = True,
    progress: StepProgress | bool = True,
) -> QualityReport:
    """Measure up to nine dimensions of quality; of a bundle all three forms: original, disentangled and served.

    Args:
        subject: a bundle (path or object), a loaded model, an ``.onnx`` file, ``http(s)://HOST:PORT``, a model's
            name, or a ``Subject``.
        suite: a ``suite.toml``, images with one sub-folder per class, or a ``Suite``; only the embedded model brings
            its own.
        quick: five dimensions on five of the fifteen corruptions; no attacks and no made images.
        dimensions: which; by default all that subject and suite allow.
        budget: images for the dimensions that need many passes.
        seed: random seed.
        pool: earlier results to score against, two or more paths, or a ``Pool``.
        threads: of ONNX Runtime.
        workers: processes that corrupt images.
        engine: ``local``, or ``ray``.
        cache: folder of finished batches, from which a stopped evaluation resumes.
        outputs: names of the model's outputs in order: a file with one per line, or ``imagenet-1k``.
        described_by: of an ``.onnx`` file, the folder with its ``preprocess.json`` and ``labels.json``.
        token: of a server, its inference key.
        published: measure as the published code does, for the score among its 326 models.
        device: where models run: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``float32``; or ``bfloat16`` or ``float16``, mixed, of torch models.
        answers: keep the answer to each image, with thumbnails of mistakes, for the report.
        model: the original of a bundle that cannot load it by name: the module, ``package.module:factory``, or the
            ONNX file that it was made from.
        save: write the report into the bundle as ``quality.json``, which ``judge`` reads.
        progress: whether to show progress, or a function that is called with (stage, done, total).

    Raises:
        EvaluationError: a dimension that was asked for cannot be measured.
        UsageError: an argument cannot be used.

    Example:
        >>> elude.evaluate("build/bundle", quick=True).dimensions["accuracy"].value  # doctest: +SKIP
        0.896
    """
    from elude.quality.dimensions import DIMENSIONS, QUICK
    from elude.quality.evaluation.evaluate import evaluate as run
    from elude.quality.policies.embedded_defaults import suite_for
    from elude.quality.scores.scoring import own_pool
    from elude.quality.subjects.devices import resolve
    from elude.quality.subjects.output_names import with_outputs
    from elude.quality.suites.suite import Suite

    where = resolve(device)
    if not isinstance(suite, Suite):
        if not isinstance(suite, (str, os.PathLike, type(None))):
            raise UsageError(
                f"A suite cannot be made of {type(suite).__name__}.",
                "Give a suite.toml, a folder with one sub-folder per class, or a Suite.",
            )
        suite = suite_for(_address(subject), None if suite is None else os.fspath(suite), outputs=outputs)
    else:
        suite = with_outputs(suite, outputs)
    opened = _subject(
        subject, described_by=described_by, token=token, threads=threads, device=where, precision=precision
    )
    others: Any = own_pool([Path(path) for path in pool]) if isinstance(pool, (list, tuple)) else pool
    with shown_progress(progress) as shown:
        report = run(
            opened,
            suite.quick() if quick else suite,
            dimensions=dimensions,
            among=QUICK if quick else DIMENSIONS,
            budget=budget,
            seed=seed,
            progress=shown,
            pool=others,
            threads=threads,
            workers=workers,
            engine=engine,
            cache=None if cache is None else Path(cache),
            published=published,
            model=model,
            device=where,
            precision=precision,
            keep_answers=answers,
        )
    if save and isinstance(opened, Bundle):
        opened.add(report.files())
    return report


def judge(
    bundle: BundleLike,
    policy: PathLike | Policy | None = None,
    *,
    baseline: BundleLike | None = None,
    waivers: PathLike | Sequence[Waiver] = (),
    today: date | None = None,
    save: bool = True,
) -> Verdict:
    """Judge an evaluated bundle by a policy: may it be released?

    Args:
        bundle: a path or an object; where there is none, the verdict is ``candidate_missing``.
        policy: a TOML file or a ``Policy``; only the embedded model brings its own.
        baseline: an earlier release to compare with.
        waivers: a TOML file, or waivers.
        today: the day that waivers are compared with; by default today (UTC).
        save: write the verdict into the bundle as ``verdict.json``, which a store and a server read.

    Raises:
        UsageError: the policy or the waivers cannot be used.
        BundleError: the bundle does not match its manifest.

    Example:
        >>> elude.judge("build/bundle", "policy.toml").passed  # doctest: +SKIP
        True
    """
    from elude.quality.gate import verdict_formats
    from elude.quality.gate.judge import judge as run
    from elude.quality.gate.waivers import load_waivers
    from elude.quality.policies.embedded_defaults import policy_for
    from elude.quality.policies.policy import Policy

    missing = isinstance(bundle, (str, os.PathLike)) and not Path(bundle).exists()
    candidate = None if missing else open_bundle(bundle)
    rules = policy if isinstance(policy, Policy) else policy_for(candidate, None if policy is None else Path(policy))
    before = None if baseline is None else open_bundle(baseline)
    allowed = load_waivers(Path(waivers)) if isinstance(waivers, (str, os.PathLike)) else waivers
    verdict = run(candidate, rules, baseline=before, waivers=allowed, today=today)
    if save and candidate is not None:
        candidate.add({"verdict.json": verdict_formats.verdict_json(verdict)})
    return verdict


def package(
    bundle: BundleLike,
    out: PathLike | None = None,
    *,
    name: str = "elude",
    version: str = "1.0",
    settings: Settings = Settings(),
) -> Path:
    """Write the TorchServe archive of a bundle.

    Args:
        bundle: a path or an object; it is verified first.
        out: the ``.mar`` file, or a folder for it.
        name: the model's name in URLs.
        version: digits and dots.
        settings: limits, steering, the preset to serve.

    Returns:
        path of the ``.mar``.

    Raises:
        BundleError: the bundle does not match its manifest.
        UsageError: name or version cannot be used, or there is no such preset.

    Example:
        >>> elude.package("build/bundle", "build")  # doctest: +SKIP
        PosixPath('build/elude.mar')
    """
    from elude.model_store.archive import package as run

    if out is None:
        raise UsageError("The archive has no place.", "Write elude.package(bundle, 'FOLDER') or (bundle, 'NAME.mar').")
    return run(open_bundle(bundle), Path(out), name=name, version=version, settings=settings)


def admit(
    bundle: BundleLike,
    store: PathLike | Store,
    *,
    why: str = "release",
    who: str | None = None,
    name: str | None = None,
    archive: PathLike | None = None,
    sign_key: PathLike | None = None,
) -> Version:
    """Put a bundle that passed the gate, with its archive, into a store.

    Args:
        bundle: a path or an object.
        store: a folder, an fsspec URL, or a ``Store``.
        why: kept in the record.
        who: kept in the record; by default the user's name.
        name: of the series of versions; by default made of the model's name.
        archive: its ``.mar``; by default one is made.
        sign_key: Ed25519 private key, as ``elude keygen`` writes it.

    Raises:
        GateError: its verdict is missing, failed, or about other bytes.
        BundleError, UsageError: the bundle or an argument cannot be used.

    Example:
        >>> elude.admit("build/bundle", "models", why="release 3").id  # doctest: +SKIP
        'embedded/1'
    """
    from elude.handlers.admission.requirements import Requirements
    from elude.model_store.signing import load_signer
    from elude.model_store.store import Store

    place = store if isinstance(store, Store) else Store(os.fspath(store), Requirements.load())
    return place.admit(
        open_bundle(bundle).root,
        None if archive is None else Path(archive),
        who=who or _user(),
        why=why,
        name=name,
        signer=None if sign_key is None else load_signer(Path(sign_key)),
        make_archive=archive is None,
    )


def _text(images: PathLike | ImageSource | None) -> str | ImageSource | None:
    return os.fspath(images) if isinstance(images, os.PathLike) else images


def _settings(fields: Mapping[str, Any]) -> ExportSettings:
    from elude.exporter.export.export_settings import ExportSettings

    known = ExportSettings.__dataclass_fields__
    if strange := [name for name in fields if name not in known]:
        raise UsageError(f"There is no setting {strange[0]!r}.", f"There are: {', '.join(known)}.")
    return ExportSettings(**fields)


def _address(subject: Any) -> str:
    """How a subject is called in a message, and by which the embedded model is known."""
    from elude.model import Model

    if isinstance(subject, (Bundle, Model)):
        return str(open_bundle(subject).root)
    if isinstance(subject, (str, os.PathLike)):
        return os.fspath(subject)
    return str(getattr(subject, "name", type(subject).__name__))


def _subject(subject: Any, **options: Any) -> Any:
    """A bundle, or another subject of an evaluation, opened with ``options``."""
    from elude.model import Model
    from elude.quality.subjects.open_subject import open_subject

    if isinstance(subject, (Bundle, Model)):
        return open_bundle(subject)
    return open_subject(os.fspath(subject), **options) if isinstance(subject, (str, os.PathLike)) else subject


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user, as in some containers
        return "unknown"
