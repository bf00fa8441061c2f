"""What is asked of ``convpinv deblur``, and what was read for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from convpinv.app.light import Light
from convpinv.app.raster import Image
from convpinv.arguments import ArgumentError


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked of ``convpinv deblur``; None is automatic."""

    source: Path
    target: Path
    psf: str | None = None
    prior: str = "tv"
    strength: float | str | None = None
    noise: float | None = None
    boundary: str = "unknown"
    device: str = "cpu"
    report: Path | None = None
    overwrite: bool = False
    mask: Path | None = None
    linear: str = "auto"
    axes: str | None = None
    check_io: bool = False
    memory: str | None = None
    dry_run: bool = False
    workers: int | None = None
    scheduler: str | None = None
    resume: bool = False
    clip: tuple[float | None, float | None] | Literal[False] | None = None
    bounds: tuple[float | None, float | None] | None = None
    exponent: float = 2 / 3
    plot: Path | None = None

    @property
    def psf_text(self) -> str:
        """The PSF, without which there is nothing to undo."""
        if self.psf is None:
            raise ArgumentError("--psf is missing; give a file or a text like gaussian:sigma=1.6")
        return self.psf


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What was read of a request's files: the picture, how its values stand for light, which pixels were seen."""

    image: Image
    light: Light
    seen: Any = None
