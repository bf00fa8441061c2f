"""Arrays with all bits of a depth, and what makes two of them equal to the bit."""

from __future__ import annotations

import numpy as np

SIZE = (21, 34)
DEPTHS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


def values(depth: str, shape: tuple[int, ...]) -> np.ndarray:
    """All bits of a depth at random; of floating point, wide numbers, both zeros, infinity and NaN."""
    generator = np.random.default_rng(7)
    dtype = np.dtype(depth)
    if dtype.kind in "iu":
        whole = np.frombuffer(generator.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape).copy()
        whole.flat[:2] = np.iinfo(dtype).min, np.iinfo(dtype).max
        return whole
    array = (generator.standard_normal(shape) * 100).astype(dtype)
    array.flat[:5] = np.nan, -0.0, np.inf, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    return array


def same(one: np.ndarray, other: np.ndarray) -> None:
    """Equal to the bit: NaN is NaN, and −0 is not 0."""
    assert one.shape == other.shape
    assert one.dtype.newbyteorder("=") == other.dtype.newbyteorder("=")
    kind = f"u{one.dtype.itemsize}"
    bits = [np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).view(kind) for array in (one, other)]
    np.testing.assert_array_equal(bits[0], bits[1])
