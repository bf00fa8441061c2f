"""The command line: declarations only; each command imports its work when it is called.

Importing this module brings typer and nothing heavier, so that help and completion answer at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from convpinv.app.choices import BlurBorder, Border, Device, Linear, Prior
from convpinv.app.folder_options import Format, Jobs, Recursive, Resume, Sources, Suffix

PSF_HELP = (
    "The point spread function: a file (a picture, Zarr or .npy) or a text: gaussian:sigma=1.6, "
    "motion:length=21,angle=30, defocus:radius=5, box:size=3x5, moffat:fwhm=4,beta=3, airy:radius=3, "
    "gibson_lanni:numerical_aperture=1.4,wavelength=0.52,pixel_size=0.065."
)
STRENGTH_HELP = "Weight of the prior, more is smoother; or the rule: likelihood (auto), discrepancy, gcv, sure."
NOISE_HELP = "Standard deviation of the noise: of full scale, or in the values of a float TIFF"

app = typer.Typer(
    name="convpinv",
    help="Deblur pictures, and look at what a blur destroys.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Source = Annotated[
    Path, typer.Argument(metavar="IN", help="The picture to read: PNG, JPEG, WebP, TIFF, FITS, NPY or Zarr.")
]
Target = Annotated[
    Path, typer.Argument(metavar="OUT", help="The picture to write: .png, .jpg, .webp, .tif, .fits, .npy or .zarr.")
]
Psf = Annotated[str, typer.Option("--psf", metavar="SPEC|FILE", help=PSF_HELP)]
Axes = Annotated[
    str | None,
    typer.Option(metavar="LETTERS", help="Name each axis of a file that does not, like TCZYX; S is for colours."),
]
AsLight = Annotated[Linear, typer.Option(help="Work in light: undo the curve of pictures for the screen.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw into this file.")]


def _version(asked: bool) -> None:
    if asked:
        from convpinv import __version__

        typer.echo(f"convpinv {__version__}")
        raise typer.Exit


@app.callback()
def convpinv(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Deblur pictures, and look at what a blur destroys."""


@app.command()
def deblur(
    sources: Sources,
    target: Annotated[str, typer.Argument(metavar="OUT", help="The file, or the folder, to write; - writes a pipe.")],
    psf: Annotated[str | None, typer.Option("--psf", metavar="SPEC|FILE", help=PSF_HELP)] = None,
    prior: Annotated[Prior, typer.Option(help="What is assumed of the sharp picture.")] = Prior.TV,
    strength: Annotated[str, typer.Option(metavar="NUMBER|RULE|auto", help=STRENGTH_HELP)] = "auto",
    noise: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|auto",
            help=f"{NOISE_HELP}; auto estimates it.",
        ),
    ] = "auto",
    boundary: Annotated[Border, typer.Option(help="What lies beyond the border.")] = Border.UNKNOWN,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A picture of the same size: what is not 0 was seen, 0 marks bad pixels."),
    ] = None,
    linear: AsLight = Linear.AUTO,
    axes: Axes = None,
    check_io: Annotated[
        bool, typer.Option("--check-io", help="Only read, write and compare: nothing is deblurred, and no PSF needed.")
    ] = False,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.CPU,
    bounds: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Where the result is to lie; 0, leaves the upper end open.")
    ] = None,
    exponent: Annotated[
        str | None, typer.Option(metavar="P", help="Of --prior hyperlaplacian, above 0 to 1; 0.67 if not given.")
    ] = None,
    clip: Annotated[
        str, typer.Option(metavar="auto|off|LOW,HIGH", help="Values at or beyond are clipped light; auto finds them.")
    ] = "auto",
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write what was done, as JSON; of many pictures a line each, .jsonl."),
    ] = None,
    plot: Plot = None,
    overwrite: Overwrite = False,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Keep to this much memory, like 4G: work in tiles.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan of the tiles and do nothing.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Work on tiles in N processes of this machine (Dask).")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on tiles on this Dask cluster, like tcp://host:8786.")
    ] = None,
    recursive: Recursive = False,
    suffix: Suffix = "",
    format_: Format = None,
    jobs: Jobs = None,
    resume: Resume = False,
) -> None:
    """Restore blurred pictures whose point spread function is known: one to a file, or many to a folder."""

    def work() -> None:
        from convpinv.app import deblur_options, places, restoring

        options = restoring.Request(
            source=Path(sources[0]),
            target=Path(target),
            psf=psf,
            prior=prior.value,
            strength=deblur_options.strength(strength),
            noise=deblur_options.number(noise, "--noise", zero=True),
            boundary=boundary.value,
            device=device.value,
            report=report,
            overwrite=overwrite,
            mask=mask,
            linear=linear.value,
            axes=axes,
            check_io=check_io,
            memory=memory,
            dry_run=dry_run,
            workers=workers,
            scheduler=scheduler,
            resume=resume,
            clip=deblur_options.clip(clip),
            bounds=deblur_options.bounds(bounds, prior.value),
            exponent=deblur_options.exponent(exponent, prior.value),
            plot=plot,
        )
        places.deblur(
            options,
            places.Places(tuple(sources), target, recursive, suffix, format_, jobs),
            typer.echo,
        )

    _finish("deblur", work)


@app.command()
def blur(
    source: Source,
    target: Target,
    psf: Psf,
    noise: Annotated[float, typer.Option(min=0.0, metavar="NUMBER", help=f"{NOISE_HELP}; 0 adds none.")] = 0.0,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="The same number gives the same noise.")] = None,
    boundary: Annotated[
        BlurBorder,
        typer.Option(help="What is read beyond the border; valid reads nothing and gives a smaller picture."),
    ] = BlurBorder.VALID,
    linear: AsLight = Linear.AUTO,
    axes: Axes = None,
    overwrite: Overwrite = False,
) -> None:
    """Blur a picture as a camera does; the result is smaller by the reach of the point spread function."""

    def work() -> None:
        from convpinv.app import blurring

        request = blurring.Request(source, target, psf, noise, seed, boundary.value, overwrite, linear.value, axes)
        for line in blurring.blur_file(request):
            typer.echo(line)

    _finish("blur", work)


@app.command(name="psf")
def psf_command(
    psf: Annotated[str | None, typer.Argument(metavar="[SPEC|FILE]", help=PSF_HELP)] = None,
    from_points: Annotated[
        Path | None, typer.Option("--from-points", metavar="FILE", help="Measure it: a picture of beads or stars.")
    ] = None,
    from_edge: Annotated[
        Path | None, typer.Option("--from-edge", metavar="FILE", help="Measure it: a picture of one slanted edge.")
    ] = None,
    from_pair: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--from-pair", metavar="SHARP BLURRED", help="Measure it: two pictures of one scene."),
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", metavar="N", help="Rows and columns of a measured one, an odd number.")
    ] = None,
    linear: AsLight = Linear.AUTO,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it: .tif (32-bit float), .png (16-bit) or .npy."),
    ] = None,
    plot: Plot = None,
    overwrite: Overwrite = False,
) -> None:
    """Show a point spread function, or measure one in pictures; write it to a file, or draw it."""

    def work() -> None:
        from convpinv.app import inspecting, psf_source

        asked = psf_source.one_of(psf, from_points, from_edge, from_pair, size, linear.value)
        for line in inspecting.show_psf(asked, output, plot, overwrite):
            typer.echo(line)

    _finish("psf", work)


@app.command()
def inspect(
    psf: Psf,
    size: Annotated[str, typer.Option("--size", metavar="HxW", help="Rows x columns of the picture.")],
    noise: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="NUMBER", help="Standard deviation of the noise, of full scale; 0.01 if not given."
        ),
    ] = None,
    plot: Plot = None,
    overwrite: Overwrite = False,
) -> None:
    """Say how well a blur can be undone: condition number, rank, noise gain, what is lost."""

    def work() -> None:
        from convpinv.app import inspecting

        for line in inspecting.inspect_blur(psf, size, noise, plot, overwrite):
            typer.echo(line)

    _finish("inspect", work)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the pictures go.")] = Path("convpinv-demo"),
) -> None:
    """Blur a real photograph as a shaken camera does, and restore it from the written file."""

    def work() -> None:
        from convpinv.app import demo as story

        story.run(folder, typer.echo)

    _finish("demo", work)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 the work failed, 2 usage or bad input."""
    for stream in (sys.stdout, sys.stderr):
        # A file name or a sign that the terminal cannot show must not end a finished work in an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    try:
        code = _call(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # What goes wrong with a file is one line by now; an error without a file's name is standard output's.
        if error.filename is not None:
            raise
        _drop_output()
        # A reader that has seen enough, like head, wants no line about it.
        if error.errno != errno.EPIPE:
            print(f"{_path(words)}: standard output cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    return code


def _call(words: list[str]) -> int:
    try:
        code = app(args=words, prog_name="convpinv", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        print("convpinv: interrupted; nothing was written", file=sys.stderr)
        return 130
    except Exception as error:
        # typer's usage errors, old click's and the one that newer typer carries, share this method; the box that
        # typer draws around them is left out: an error is one line.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        context = getattr(error, "ctx", None)
        # The parser's own errors, an option without its value, know no command.
        path = context.command_path if context is not None else _path(words)
        line = " ".join(message().split()).rstrip(".").replace("Value error, ", "")
        print(f"{path}: {line}; see '{path} --help'", file=sys.stderr)
        return 2
    return code if isinstance(code, int) else 0


def _path(words: list[str]) -> str:
    """Return the command that was called as its errors name it; the first word is the command's or none is."""
    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    return f"convpinv {words[0]}" if words and words[0] in names else "convpinv"


def _drop_output() -> None:
    """Send what is left for standard output nowhere, or Python would complain of it once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _finish(command: str, work: Callable[[], None]) -> None:
    from convpinv.app import console

    code = console.run(command, work)
    if code:
        raise typer.Exit(code)


if __name__ == "__main__":
    sys.exit(main())
