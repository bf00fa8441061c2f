"""The words that options of the command line may have; declarations only."""

from __future__ import annotations

import enum


class Prior(enum.StrEnum):
    """What is assumed of the sharp picture."""

    TV = "tv"
    HYPERLAPLACIAN = "hyperlaplacian"
    NONLOCAL = "nonlocal"
    GRADIENT = "gradient"
    TIKHONOV = "tikhonov"
    NONE = "none"


class Border(enum.StrEnum):
    """What deblurring assumes beyond the picture's border."""

    UNKNOWN = "unknown"
    REFLECT = "reflect"
    REPLICATE = "replicate"
    ZEROS = "zeros"
    CIRCULAR = "circular"


class BlurBorder(enum.StrEnum):
    """What blurring reads beyond the picture's border."""

    VALID = "valid"
    REFLECT = "reflect"
    REPLICATE = "replicate"
    ZEROS = "zeros"
    CIRCULAR = "circular"


class Linear(enum.StrEnum):
    """Whether the values of a file are decoded to light first."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Device(enum.StrEnum):
    """Where the computation runs."""

    CPU = "cpu"
    CUDA = "cuda"
