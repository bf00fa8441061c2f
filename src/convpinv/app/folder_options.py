"""The options of the command line that are about many pictures; declarations only."""

from __future__ import annotations

from typing import Annotated

import typer

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="IN...",
        help=(
            "The pictures to read: PNG, JPEG, WebP, TIFF, FITS, NPY or Zarr; folders, and quoted patterns like "
            "'shots/*.png'; - for a pipe."
        ),
    ),
]
Recursive = Annotated[bool, typer.Option("--recursive", help="Folders: enter the folders in them, and keep the tree.")]
Suffix = Annotated[str, typer.Option("--suffix", metavar="TEXT", help="Folders: add this to the names of outputs.")]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar="FORMAT", help="Folders and pipes: the ending of outputs, like png, tif or fits."),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, metavar="N", help="Folders: pictures worked on at once; one a core if not given."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a folder or with tiles that were begun and not finished.")
]
