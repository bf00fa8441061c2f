"""Public checks: the laws that every operator and every pseudo-inverse obeys, for the tests of others too.

:func:`check_operator` checks all of them and prints a table. Each single check raises ``AssertionError`` with the
numbers where a law is broken, and returns the largest relative error where it holds, so that a test can say how well.
"""

from convpinv.testing.everything import check_operator
from convpinv.testing.laws import (
    Operator,
    check_adjoint,
    check_against_dense,
    check_penrose,
    random_images,
    tolerance,
)
from convpinv.testing.report import Law, Report
from convpinv.testing.strategies import conv2d_operators

__all__ = [
    "Law",
    "Operator",
    "Report",
    "check_adjoint",
    "check_against_dense",
    "check_operator",
    "check_penrose",
    "conv2d_operators",
    "random_images",
    "tolerance",
]
