"""What a file is, by its first bytes and never by its name."""

from __future__ import annotations

PNG = b"\x89PNG\r\n\x1a\n"
NUMPY = b"\x93NUMPY"
FITS = b"SIMPLE  ="
_SIGNATURES = (
    (PNG, "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (FITS, "fits"),
    (NUMPY, "npy"),
)
# Formats that people do hand over: naming what they have tells them more than "not a picture".
_STRANGERS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"%PDF", "a PDF"),
    (b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (b"PK\x03\x04", "a zip or NPZ file"),
    (b"\x1f\x8b", "gzip-compressed"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"8BPS", "a Photoshop file"),
)


def format_in(data: bytes) -> str | None:
    """Return ``png``, ``jpeg``, ``tiff``, ``webp``, ``fits`` or ``npy``, or None for all else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for signature, name in _SIGNATURES if data.startswith(signature)), None)


def stranger(data: bytes) -> str:
    """Say in words what the bytes of a file that is not read here are."""
    if data[4:8] == b"ftyp":
        return "is a HEIC or AVIF or a film, which this version does not read"
    name = next((name for signature, name in _STRANGERS if data.startswith(signature)), None)
    return f"is {name}, which this version does not read" if name else "is not a picture that this version knows"
