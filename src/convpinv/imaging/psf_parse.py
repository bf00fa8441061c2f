"""Point spread functions from texts, and for the pictures of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from convpinv import arguments
from convpinv.imaging.psf_makers import airy, box, defocus, gaussian, moffat, motion
from convpinv.imaging.psf_microscope import gibson_lanni

__all__ = ["MAKERS", "for_pictures", "parse"]


def parse(spec: str) -> Tensor:
    """Return the PSF that a text such as ``"gaussian:sigma=1.6"`` describes.

    The text is the maker's name, a colon, and its parameters ``name=value`` with commas between them; the parameters
    are those of the makers in this module. A box of unequal sides is ``box:size=3x5``, rows first.

    Parameters
    ----------
    spec
        ``gaussian:sigma=1.6``, ``motion:length=25,angle=30``, ``defocus:radius=5``, ``box:size=4``, ``box:size=3x5``,
        ``moffat:fwhm=4,beta=3``, ``airy:radius=3``,
        ``gibson_lanni:numerical_aperture=1.4,wavelength=0.52,pixel_size=0.065``; upper and lower case
        and spaces make no difference.

    Returns
    -------
    Tensor
        What the maker returns: float64, on the CPU, sum 1.

    Raises
    ------
    ArgumentError
        If the maker or a parameter is unknown, missing, twice there or not a number; the message lists what there is.

    Notes
    -----
    Cost: that of the maker. Files are not read here: read the picture and give it to :func:`from_array`.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> psf.parse("box:size=3x5").shape
    torch.Size([3, 5])
    """
    if not isinstance(spec, str):
        arguments.fail("psf.parse", "spec", arguments.describe(spec), "it must be a text such as 'gaussian:sigma=1.6'")
    name, _, listed = (part.strip() for part in spec.lower().partition(":"))
    if name not in MAKERS:
        known = ", ".join(f"'{maker.example}'" for maker in MAKERS.values())
        arguments.fail(
            "psf.parse", "spec", repr(spec), f"it may be like {known}; a PSF in a file is read as a picture first"
        )
    maker = MAKERS[name]
    values: dict[str, Any] = {}
    for item in (part.strip() for part in listed.split(",") if part.strip()):
        key, _, text = (part.strip() for part in item.partition("="))
        if key not in maker.parameters or key in values:
            trouble = "is given twice" if key in values else f"is not among them: {', '.join(maker.parameters)}"
            arguments.fail(
                "psf.parse", "spec", repr(spec), f"the parameter '{key}' {trouble}; it may be like '{maker.example}'"
            )
        try:
            values[key] = maker.parameters[key](text)
        except ValueError:
            arguments.fail(
                "psf.parse", "spec", repr(spec), f"'{key}={text}' cannot be read; it may be like '{maker.example}'"
            )
    missing = [key for key in maker.required if key not in values]
    if missing:
        arguments.fail(
            "psf.parse", "spec", repr(spec), f"it lacks {', '.join(missing)}; it may be like '{maker.example}'"
        )
    return maker.make(**values)


def for_pictures(call: str, psf: Any, pictures: arguments.Pictures) -> list[Tensor]:
    """Return the PSFs (h, w) of a public call, one for all planes or one a channel, checked against its pictures."""
    checked = arguments.psf(call, "psf", _parsed_for(call, psf) if isinstance(psf, str) else psf)
    arguments.psf_fits(call, checked, pictures)
    return list(checked.to(pictures.stack.device, pictures.stack.dtype).reshape(-1, *checked.shape[-2:]))


def _parsed_for(call: str, spec: str) -> Tensor:
    """Return the PSF of a text; what is wrong with it is said in the name of the call that it was given to."""
    try:
        return parse(spec)
    except arguments.ArgumentError as error:
        trouble = str(error).partition(": ")[2].removeprefix(f"spec is {spec!r}; ")
    arguments.fail(call, "psf", repr(spec), trouble)


def _sides(text: str) -> int | tuple[int, int]:
    """Read ``4`` or ``3x5``."""
    rows, cross, columns = text.replace("×", "x").partition("x")
    return (int(rows), int(columns)) if cross else int(rows)


@dataclass(frozen=True)
class _Maker:
    """How a text calls a maker."""

    make: Callable[..., Tensor]
    parameters: dict[str, Callable[[str], Any]]
    required: tuple[str, ...]
    example: str


MAKERS = {
    "gaussian": _Maker(gaussian, {"sigma": float, "size": int}, ("sigma",), "gaussian:sigma=1.6"),
    "motion": _Maker(motion, {"length": float, "angle": float}, ("length",), "motion:length=25,angle=30"),
    "defocus": _Maker(defocus, {"radius": float}, ("radius",), "defocus:radius=5"),
    "box": _Maker(box, {"size": _sides}, ("size",), "box:size=3x5"),
    "moffat": _Maker(moffat, {"fwhm": float, "beta": float, "size": int}, ("fwhm",), "moffat:fwhm=4,beta=3"),
    "airy": _Maker(airy, {"radius": float, "size": int, "obstruction": float}, ("radius",), "airy:radius=3"),
    "gibson_lanni": _Maker(
        gibson_lanni,
        {
            "numerical_aperture": float,
            "wavelength": float,
            "pixel_size": float,
            "depth": float,
            "defocus": float,
            "immersion_index": float,
            "immersion_index_design": float,
            "coverslip_index": float,
            "coverslip_index_design": float,
            "specimen_index": float,
            "coverslip_thickness": float,
            "coverslip_thickness_design": float,
            "working_distance": float,
            "size": int,
        },
        ("numerical_aperture", "wavelength", "pixel_size"),
        "gibson_lanni:numerical_aperture=1.4,wavelength=0.52,pixel_size=0.065",
    ),
}
