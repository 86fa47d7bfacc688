"""The commands that build and check suites of evaluation images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elude.cli.terminal import AsJson, counted, show
from elude.progress import progress_bar

commands = typer.Typer()
suite = typer.Typer(help="Build and check suites of evaluation images.", no_args_is_help=True)
commands.add_typer(suite, name="suite")


@suite.command("build")
def suite_build(
    images: Annotated[Path, typer.Argument(help="Labelled images: a folder or .tar with one sub-folder per class.")],
    out: Annotated[Path, typer.Option(help="Folder of the suite; a stopped build resumes.")],
    size: Annotated[int, typer.Option(help="Height and width of the images, in pixels.")] = 224,
    masks: Annotated[Path | None, typer.Option(help="Masks of the objects, laid out like the images.")] = None,
    dark_background: Annotated[bool, typer.Option(help="Objects lie on black: masks are made from that.")] = False,
) -> None:
    """Make corrupted, background, cue-conflict and shifted images from labelled ones.

    Example: elude suite build labelled/ --out suite && elude evaluate build/bundle --suite suite
    """
    from elude.quality.suites.suite_build import BuildSettings, build

    with progress_bar() as progress:
        built = build(
            images,
            out,
            masks=masks,
            settings=BuildSettings(size=size, dark_background=dark_background),
            progress=progress,
        )
    made = [name for name in built.made if not name.startswith("corrupted/")]
    corrupted = len(built.made) - len(made)
    rows = {"made": ", ".join(made + [f"{counted(corrupted, 'set')} of corruptions"] * bool(corrupted)) or "nothing"}
    if built.kept:
        rows["already there"] = counted(len(built.kept), "set")
    show(f"Built {built.folder}", rows)
    typer.echo(f"Next: elude evaluate MODEL --suite {built.folder}")


@suite.command("init")
def suite_init(
    folder: Annotated[Path, typer.Argument(help="A data set as it is after unpacking, or a folder of several.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the validation images, where several could be, relative to FOLDER.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; by default suite.toml in FOLDER.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a folder, say what it holds, and write the suite file that `elude evaluate --suite` takes.

    Recognised: ImageNet's validation images (in class folders, or flat with a list), ImageNet-C, ImageNet-R,
    ImageNet-Sketch, ImageNet-9, the stimuli of model-vs-human and texture-vs-shape, domains such as PACS, train and
    val folders, and plain or numbered class folders.

    Example: elude suite init imagenet/
    """
    from elude.quality.suites.suite_init import init

    written = init(folder, images=images, out=out)
    rows = {str(item.path): item.what for item in written.used}
    rows |= {str(item.path): f"{item.what}; left out: {reason}" for item, reason in written.left_out}
    if as_json:
        show(str(written.file), {"file": str(written.file), "sets": rows}, as_json)
        return
    show(f"Wrote {written.file}", rows)
    typer.echo(f"Next: elude evaluate MODEL --suite {written.file}")
