"""Hypothesis strategies of operators. Needs the package ``hypothesis``, when a strategy is asked for and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from convpinv.linalg.operator import Conv2dOperator


def conv2d_operators(dtype: torch.dtype = torch.float64) -> SearchStrategy[Conv2dOperator]:
    """Hypothesis strategy of small convolutions: every boundary, stride, padding, dilation, grouping and kernel size.

    Needs the package ``hypothesis``. Shrinks towards one channel, stride 1 and no padding.

    Examples
    --------
    >>> from hypothesis import given
    >>> from convpinv.testing import check_adjoint, conv2d_operators
    >>> @given(conv2d_operators())
    ... def test_adjoint(operator):
    ...     check_adjoint(operator)
    """
    from hypothesis import assume
    from hypothesis import strategies as st

    from convpinv.arguments import ArgumentError, Boundary
    from convpinv.linalg.operator import Conv2dOperator

    small = st.integers(1, 3)

    @st.composite
    def draw(draw: st.DrawFn) -> Conv2dOperator:
        groups = draw(st.integers(1, 2))
        channels = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
        taps = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        stride = draw(st.tuples(small, small))
        padding = draw(
            st.one_of(
                st.just("valid"),
                st.just("same") if stride == (1, 1) else st.just(0),
                st.integers(0, 3),
                st.tuples(st.integers(0, 3), st.integers(0, 3)),
            )
        )
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        weight = torch.randn(channels[1], channels[0] // groups, *taps, generator=generator, dtype=dtype)
        try:
            return Conv2dOperator(
                weight,
                draw(st.tuples(st.integers(4, 9), st.integers(4, 9))),
                stride=stride,
                padding=padding,
                dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
                groups=groups,
                padding_mode=draw(st.sampled_from([str(mode) for mode in Boundary])),
            )
        except ArgumentError:
            assume(False)
            raise

    return draw()
