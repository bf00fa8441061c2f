"""What eliminating a border costs, for each way of doing it: decided before anything is done."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import prod

from convpinv.linalg import structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Geometry
from convpinv.linalg.solvers.base import Problem
from convpinv.linalg.solvers.border import layout
from convpinv.linalg.solvers.border.half_periodic import turned
from convpinv.linalg.solvers.border.systems import is_square


@dataclass(frozen=True)
class Elimination:
    """A way of eliminating the border, and what it costs: rows of the border matrix, bytes, floating-point operations.

    ``way`` is "square", "around" (the whole border at once), "columns" (the rows' border a frequency at a time, then
    the columns') or "rows".
    """

    way: str
    unknowns: int
    kept: float
    peak: float
    operations: float


def best_elimination(problem: Problem) -> Elimination:
    """The cheapest way for a problem."""
    return eliminations(structure.trimmed(problem.operator), problem.regularization.damp > 0)[0]


def eliminations(operator: Convolution, damped: bool) -> list[Elimination]:
    """All ways that serve, the cheapest first."""
    around = _around(operator, damped)
    if not damped and is_square(operator):
        return [around]
    ways = [around, _by_lines(operator, "columns"), _by_lines(turned(operator), "rows")]
    return sorted(ways, key=lambda way: way.operations)


def _around(operator: Convolution, damped: bool) -> Elimination:
    geometry = operator.geometry
    frame_inputs, frame_outputs, corrected = layout.count_differences(geometry, True)
    square = not damped and is_square(operator)
    unknowns = frame_outputs + corrected if square else frame_inputs + frame_outputs + 2 * corrected
    domain = layout.domain_of(geometry, True)
    channels = operator.weight.shape[0] // geometry.groups
    if not square:
        channels += operator.weight.shape[1] * prod(geometry.stride)
    response = geometry.groups * channels**2 * domain.output_places * _itemsize(operator)
    # The corrections read blocks of C⁻¹ as large as the border matrix itself.
    blocks = 2 if corrected else 0
    return _elimination("square" if square else "around", operator, unknowns, response, blocks)


def _by_lines(operator: Convolution, way: str) -> Elimination:
    geometry = operator.geometry
    frame_inputs, frame_outputs, corrected = layout.count_differences(geometry, False)
    unknowns = frame_inputs + frame_outputs + 2 * corrected
    outputs, inputs = operator.weight.shape[0] // geometry.groups, operator.weight.shape[1]
    lines = outputs * geometry.rows.out_size + inputs * geometry.columns.stride * geometry.rows.size
    row_differences = layout.count_differences(Geometry(geometry.columns, geometry.rows, inputs, outputs, 1), False)
    row_unknowns = sum(row_differences) // max(1, geometry.columns.out_size)
    length = layout.grid_length(geometry.columns)
    lags = min(length, 4 * geometry.columns.reach + 4)
    response = geometry.groups * lines**2 * lags * _itemsize(operator)
    way_cost = _elimination(way, operator, unknowns, response, 2 if corrected else 0)
    lookups = geometry.groups * length / 2 * 8 * lines**2 * (row_unknowns + 10)
    return dataclasses.replace(way_cost, operations=way_cost.operations + lookups)


def _elimination(way: str, operator: Convolution, unknowns: int, response: float, blocks: int) -> Elimination:
    groups, itemsize = operator.geometry.groups, _itemsize(operator)
    kept = groups * unknowns**2 * itemsize
    # The products with corrections are sparse: about an eighth of their entries, two products of 2·m³.
    operations = groups * unknowns**3 * (2 / 3 + blocks / 4) * (4 if operator.dtype.is_complex else 1)
    return Elimination(way, unknowns, kept, (2 + blocks) * kept + 3 * response, operations)


def _itemsize(operator: Convolution) -> int:
    return 16 if operator.dtype.is_complex else 8
