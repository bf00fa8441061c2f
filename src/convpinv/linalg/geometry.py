"""Where a convolution reads and writes: sizes, strides, padding, one axis at a time.

Padding is separable: what ``torch.nn.Conv2d`` reads outside a picture is decided for each axis alone. So one axis is
the whole geometry, and a picture has two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from convpinv.arguments import Boundary, fail


def boundary_source(index: int, size: int, boundary: Boundary) -> int:
    """Index of the pixel that stands at ``index`` of an axis of ``size`` pixels continued by a boundary; −1 for a zero.

    Examples
    --------
    >>> from convpinv.arguments import Boundary
    >>> [boundary_source(index, 4, Boundary.REFLECT) for index in range(-2, 6)]
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    inside = 0 <= index < size
    match boundary:
        case Boundary.CIRCULAR:
            return index % size
        case Boundary.REPLICATE:
            return min(max(index, 0), size - 1)
        case Boundary.REFLECT:
            # torch's word: the edge pixel is not repeated (scipy.ndimage calls this "mirror").
            return index if inside else (-index if index < 0 else 2 * (size - 1) - index)
        case Boundary.ZEROS:
            return index if inside else -1


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: output i reads the inputs ``stride·i − before + dilation·t`` for each tap t.

    ``before`` and ``after`` count the padded pixels; negative numbers (zero boundary only) leave pixels out, which
    is how a transposed convolution with output padding looks from the other side.
    """

    size: int
    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    boundary: Boundary

    @property
    def reach(self) -> int:
        """Distance between the first and the last tap, in pixels."""
        return self.dilation * (self.taps - 1)

    @property
    def padded_size(self) -> int:
        """Length of the axis after padding."""
        return self.size + self.before + self.after

    @property
    def out_size(self) -> int:
        """Number of outputs."""
        return (self.padded_size - self.reach - 1) // self.stride + 1

    @property
    def used_size(self) -> int:
        """Length of the part of the padded axis that the outputs read."""
        return (self.out_size - 1) * self.stride + self.reach + 1

    @property
    def is_untouched(self) -> bool:
        """Whether no output reads outside the picture, so that the boundary plays no part."""
        return self.before <= 0 and self.used_size - self.before <= self.size

    def sources(self) -> list[int]:
        """For each padded position the input index that it shows, −1 for a zero."""
        return [boundary_source(place - self.before, self.size, self.boundary) for place in range(self.padded_size)]

    def check(self, call: str, name: str) -> None:
        """Raise where torch's own layer could not work: too much padding, or a kernel larger than what is there."""
        most = max(self.before, self.after)
        if self.boundary is Boundary.REFLECT and most >= self.size:
            fail(
                call,
                "padding",
                f"{most} along the {name}",
                f"'reflect' needs less than the picture's {self.size} pixels",
            )
        if self.boundary is Boundary.CIRCULAR and most > self.size:
            fail(
                call,
                "padding",
                f"{most} along the {name}",
                f"'circular' allows at most the picture's {self.size} pixels",
            )
        if self.padded_size <= self.reach:
            fail(
                call,
                "weight",
                f"{self.reach + 1} pixels long along the {name} (dilation included)",
                f"the padded picture has only {self.padded_size} there: use a smaller kernel or more padding",
            )


@dataclass(frozen=True)
class Geometry:
    """Two axes, channels and groups: everything about a convolution but the kernel's values.

    ``kernels`` convolutions of one shape may stand side by side, which share out channels and groups and have a rank
    threshold each.
    """

    rows: Axis
    columns: Axis
    in_channels: int
    out_channels: int
    groups: int
    kernels: int = 1

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Rows, then columns."""
        return self.rows, self.columns

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(Cin, H, W) of one picture."""
        return self.in_channels, self.rows.size, self.columns.size

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(Cout, H', W') of one output."""
        return self.out_channels, self.rows.out_size, self.columns.out_size

    @property
    def stride(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows.stride, self.columns.stride

    @property
    def dilation(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows.dilation, self.columns.dilation

    @property
    def boundary(self) -> Boundary:
        """What is read outside the picture; the same word on both axes."""
        return self.rows.boundary
