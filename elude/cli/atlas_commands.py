"""The command that writes the atlas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elude.cli.terminal import BundlePath
from elude.progress import progress_bar

commands = typer.Typer()


@commands.command()
def atlas(
    path: BundlePath,
    out: Annotated[Path, typer.Option(help="Folder for the pages.")],
    images: Annotated[
        str | None, typer.Option(help="Images for what fires together and class effects; embedded brings its own.")
    ] = None,
    max_images: Annotated[int, typer.Option(help="Images used at most.")] = 1_000,
    effect_images: Annotated[
        int, typer.Option(help="Strongest images on which each sub-unit and concept is ablated; 0: no class effects.")
    ] = 3,
    overwrite: Annotated[bool, typer.Option(help="Replace an atlas at --out.")] = False,
) -> None:
    """Write static pages to browse a model by concept; open index.html in any browser.

    Example: elude atlas build/bundle --out build/atlas
    """
    from elude.exporter.atlas.page_data import gather
    from elude.exporter.atlas.write_pages import write_pages
    from elude.exporter.scoring.bundle_activity import activity_of, images_for
    from elude.handlers.bundle.bundle import Bundle

    bundle = Bundle.open(path)
    source = images_for(bundle, images)
    with progress_bar() as progress:
        activity = None
        if source is not None:
            activity = activity_of(
                bundle, source, limit=max_images, progress=lambda done, total: progress("images", done, total)
            )
        content = gather(bundle, activity, effect_images, progress)
        page = write_pages(
            content, out, overwrite=overwrite, progress=lambda done, total: progress("pages", done, total)
        )
    typer.echo(f"Open {page.resolve()} in a browser.")
    if source is None:
        typer.echo("Without --images the pages leave out what fires together and the effects on classes.")
