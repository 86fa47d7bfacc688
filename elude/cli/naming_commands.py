"""The command that names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from elude.cli.terminal import AsJson, BundlePath, show
from elude.handlers.errors import UsageError
from elude.progress import progress_bar

commands = typer.Typer()


@commands.command()
def name(
    path: BundlePath,
    images: Annotated[
        str | None, typer.Option(help="Images: a folder or .tar; the embedded model brings its own.")
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option(help="CSV of attributes of the images, used instead of their classes.")
    ] = None,
    superclasses: Annotated[
        Path | None, typer.Option(help="CSV of coarser classes to name by as well: class,superclass in each line.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Name by words: open_clip:MODEL/PRETRAINED, or a folder with an ONNX pair.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Words for --encoder, one a line; default: the shipped everyday words.")
    ] = None,
    template: Annotated[str, typer.Option(help="Sentence that each word is put into.")] = "a photo of a {}",
    top: Annotated[int | None, typer.Option(help="Strongest images looked at; default 50, with --encoder 100.")] = None,
    fdr: Annotated[
        float | None, typer.Option(help="Part of all names that may be chance; default 0.01, with --encoder 0.05.")
    ] = None,
    purity: Annotated[float, typer.Option(help="Part of the strongest images that must carry the label.")] = 0.5,
    neighbours: Annotated[
        float, typer.Option(help="Correlation at which a neighbour lends its name; above 1: never.")
    ] = 0.9,
    keep: Annotated[bool, typer.Option(help="Keep the names of sub-units that get no new one.")] = False,
    replace: Annotated[bool, typer.Option(help="Lose its names and what was measured of it.")] = False,
    max_images: Annotated[int, typer.Option(help="Images used at most.")] = 3_000,
    as_json: AsJson = False,
) -> None:
    """Name sub-units by what their strongest images have in common. Makes a new artefact: evaluate and judge it again.

    Asks first where names, measurements or a verdict would be lost; --replace answers for scripts.

    Example: elude name build/bundle --images photos/
    """
    from elude.exporter.naming.clip import ClipSettings
    from elude.exporter.naming.labels import LabelSettings
    from elude.exporter.naming.name_bundle import Naming, name_by_labels, name_by_vocabulary
    from elude.exporter.naming.write_names import losses
    from elude.handlers.bundle.bundle import Bundle

    bundle = Bundle.open(path)
    if not replace and (lost := losses(bundle, keep)):
        _allow(path, lost)
    with progress_bar() as progress:
        naming = Naming(neighbours if neighbours <= 1 else None, keep, max_images, progress)
        if encoder is None:
            wanted = LabelSettings(top or 50, 0.01 if fdr is None else fdr, purity)
            named = name_by_labels(
                bundle, images, wanted, attributes=attributes, superclasses=superclasses, naming=naming
            )
        else:
            words = ClipSettings(top or 100, fdr=0.05 if fdr is None else fdr)
            named = name_by_vocabulary(
                bundle, images, encoder, words, vocabulary=vocabulary, template=template, naming=naming
            )
    show(f"Named {path}", named.facts(), as_json)


def _allow(path: Path, lost: list[str]) -> None:
    """Ask whether that may be lost; refuse where nobody can be asked."""
    if not sys.stdin.isatty():
        raise UsageError(f"Naming {path} loses {', '.join(lost)}.", "Allow it with --replace; --keep keeps the names.")
    if not typer.confirm(f"Naming {path} loses {', '.join(lost)}. Go on?"):
        raise typer.Abort
