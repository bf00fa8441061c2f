"""All laws of an operator and its pseudo-inverse in one call, with a table of how well each holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor

from convpinv.linalg.convolution import Convolution
from convpinv.linalg.operator import AdjointOperator, Conv2dOperator
from convpinv.linalg.pinv import PinvOperator
from convpinv.testing.laws import (
    Operator,
    adjoint_errors,
    dense_errors,
    penrose_errors,
    random_images,
    relative_error,
)
from convpinv.testing.report import Law, Report
from convpinv.testing.subject import Subject, skipped

# Relative change of the answer in the finite difference by the kernel. The rounding of the answer is magnified by its
# inverse; the truncation of a difference of four points is its fourth power.
DIFFERENCE = 1e-4
SCALES = (1e-5, 1e5)


class Invertible(Operator, Protocol):
    """An operator that makes its own pseudo-inverse."""

    def pinv(self, damp: float = 0.0) -> Operator:
        """Pseudo-inverse."""
        ...


def check_operator(
    operator: Operator,
    pinv: Operator | None = None,
    *,
    damp: float = 0.0,
    rtol: float | None = None,
    tol: float | None = None,
    dense_limit: int = 1024,
) -> Report:
    """Check every law that an operator and its pseudo-inverse obey, and say how well each holds.

    The adjoints of both; linearity; the four Penrose identities, or with damping the normal equations; the dense matrix
    and its pseudo-inverse in double precision; the scaling of the kernel; gradients by the data, of first and second
    order, and by the kernel.

    Parameters
    ----------
    operator : Operator
        Anything with ``in_shape``, ``out_shape``, ``dtype``, ``device``, ``H``, ``to_dense`` and a call.
    pinv : Operator, optional
        Its pseudo-inverse, with the same; default ``operator.pinv(damp=damp)``.
    damp, rtol : float, optional
        What the pseudo-inverse was made with. Read from it instead where it is a :class:`~convpinv.PinvOperator`.
    tol : float, optional
        Largest relative error allowed, for every law alike. By default ``100·ε`` for adjoints and ``100·ε·κ`` for what
        involves the pseudo-inverse, κ being the report's ``condition``; where it was iterated to a relative residual
        ``t``, ``κ²·t`` more. A law whose tolerance would exceed 0.1 is skipped. For operators too large for a dense
        matrix κ is unknown, and :func:`tolerance` of the dtype is allowed.
    dense_limit : int
        Inputs or outputs, whichever are more, up to which the dense matrix is made. 1024 take about a second.

    Returns
    -------
    Report
        One :class:`Law` each; ``print`` it.

    Raises
    ------
    AssertionError
        If a law is broken: with the whole table, so that all broken ones are seen at once. A law whose evaluation
        raises (an iteration that did not converge, say) is broken.

    Notes
    -----
    Skipped, with the reason in the table: the dense comparison where it would be too large, or where a singular value
    lies within a factor 8 of the rank threshold; ``A A⁺ A = A`` where a threshold of yours cuts; scaling and gradient
    by the kernel where the operator is no convolution of this package; the latter also in single precision, whose
    finite differences have no digits, and where the rank is deficient and damp = 0. Random pictures are seeded.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.rand(2, 1, 3, 3, dtype=torch.float64), (8, 8), padding=1)
    >>> report = convpinv.testing.check_operator(A, damp=0.1)
    >>> len(report.broken)
    0
    """
    if pinv is None:
        pinv = cast(Invertible, operator).pinv(damp=damp)
    subject = Subject.of(operator, pinv, damp, rtol, tol, dense_limit)
    laws: list[Law] = []
    with torch.no_grad():
        for family in (_adjoints, _linearity, _identities, _dense, _scaling, _gradients, _kernel_gradient):
            laws += family(subject)
    report = Report(tuple(laws), subject.dense.condition, subject.eps)
    if report.broken:
        names = ", ".join(law.name for law in report.broken)
        raise AssertionError(f"{len(report.broken)} of {len(laws)} laws are broken: {names}\n{report}")
    return report


def _adjoints(subject: Subject) -> list[Law]:
    of_operator, of_pinv = "⟨A x, y⟩ = ⟨x, Aᴴ y⟩", "⟨A⁺ y, x⟩ = ⟨y, A⁺ᴴ x⟩"

    def run(operator: Operator, name: str) -> dict[str, float]:
        (error,) = adjoint_errors(operator).values()
        return {name: error}

    # An iteration is not exactly linear, so what is claimed to be its adjoint is one to its residual only.
    return [
        *subject.laws((of_operator,), subject.plain, lambda: run(subject.operator, of_operator)),
        *subject.laws((of_pinv,), subject.inverted, lambda: run(subject.pinv, of_pinv)),
    ]


def _linearity(subject: Subject) -> list[Law]:
    sums, multiples = names = ("A⁺ (y + z) = A⁺ y + A⁺ z", "A⁺ (c y) = c A⁺ y")

    def run() -> dict[str, float]:
        pinv = subject.pinv
        y, z = (_data(subject, seed) for seed in (7, 8))
        one, other = pinv(y), pinv(z)
        return {
            sums: relative_error(pinv(y + z), one + other),
            multiples: max(relative_error(pinv(scale * y), scale * one) for scale in SCALES),
        }

    return subject.laws(names, subject.inverted, run)


def _identities(subject: Subject) -> list[Law]:
    names, normal = ("A A⁺ A = A", "A⁺ A A⁺ = A⁺", "(A A⁺)ᴴ = A A⁺", "(A⁺ A)ᴴ = A⁺ A"), ("(AᴴA + damp²) A⁺ = Aᴴ",)
    cut = "the threshold cuts singular values, and this holds without them"

    def run() -> dict[str, float]:
        return penrose_errors(subject.operator, subject.pinv)

    def balance() -> dict[str, float]:
        operator, y = subject.operator, _data(subject, 4)
        x = subject.pinv(y)
        return {normal[0]: relative_error(operator.H(operator(x)) + subject.damp**2 * x, operator.H(y))}

    if subject.damp:
        inner = skipped(names[:2], "damped: the normal equations stand in their place")
        inner += skipped(normal, cut) if subject.cuts else subject.laws(normal, subject.inverted, balance)
        return inner + subject.laws(names[2:], subject.inverted, run)
    if subject.cuts:
        return skipped(names[:1], cut) + subject.laws(names[1:], subject.inverted, run)
    return subject.laws(names, subject.inverted, run)


def _dense(subject: Subject) -> list[Law]:
    image, names = ("A x by its matrix",), ("A⁺ y", "(A⁺)ᴴ x")
    shown = tuple(f"{name} by the dense matrix" for name in names)
    facts = subject.dense
    matrix, inverse = facts.matrix, facts.inverse
    if facts.failure:
        return [Law(image[0], float("inf"), subject.plain, facts.failure), *skipped(shown, facts.no_inverse)]
    if matrix is None:
        return skipped((*image, *shown), facts.no_inverse)

    def run_image() -> dict[str, float]:
        x = random_images(subject.operator.in_shape, subject.operator, seed=9)
        expected = x.flatten(1).to(matrix.dtype) @ matrix.mT
        return {image[0]: relative_error(subject.operator(x).flatten(1), expected)}

    found = subject.laws(image, subject.plain, run_image)
    if inverse is None:
        return found + skipped(shown, facts.no_inverse)

    def run() -> dict[str, float]:
        errors = dense_errors(subject.operator, subject.pinv, inverse)
        return {label: errors[name] for label, name in zip(shown, names, strict=True)}

    return found + subject.laws(shown, subject.inverted, run)


def _scaling(subject: Subject) -> list[Law]:
    name = "pinv(c·k) = pinv(k)/c"
    again, why = _maker(subject)
    if again is None:
        return skipped((name,), why)

    def run() -> dict[str, float]:
        y = _data(subject, 10)
        weight, one = _weight(subject), subject.pinv(y)
        return {name: max(relative_error(again(scale * weight, scale, None)(y) * scale, one) for scale in SCALES)}

    return subject.laws((name,), subject.inverted, run)


@torch.enable_grad()
def _gradients(subject: Subject) -> list[Law]:
    first, second = names = ("gradient by y is A⁺ᴴ g", "derivative of that by g is A⁺")
    y, g, v = _data(subject, 11), _picture(subject, 12), _data(subject, 13)

    def run() -> dict[str, float]:
        data, incoming = y.clone().requires_grad_(), g.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(subject.pinv(data), data, incoming, create_graph=True)
        (twice,) = torch.autograd.grad(gradient, incoming, v)
        with torch.no_grad():
            return {
                first: relative_error(gradient.detach(), subject.pinv.H(g)),
                second: relative_error(twice, subject.pinv(v)),
            }

    return subject.laws(names, subject.inverted, run)


@torch.enable_grad()
def _kernel_gradient(subject: Subject) -> list[Law]:
    name = "gradient by the kernel"
    again, why = _maker(subject)
    condition = subject.dense.condition
    if subject.eps > 1e-10:
        why = "finite differences need double precision"
    elif condition is None:
        why = subject.dense.no_inverse
    elif subject.dense.is_deficient and not subject.damp:
        why = "the rank is deficient and damp is 0: no derivative"
    elif subject.cuts:
        why = "a threshold of your own leaves no derivative in general"
    if again is None or condition is None or why:
        return skipped((name,), why)

    def run() -> dict[str, float]:
        y, g = _data(subject, 14), _picture(subject, 15)
        weight = _weight(subject)
        generator = torch.Generator().manual_seed(16)
        direction = torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight.device)
        size = weight.norm() if bool(weight.any()) else torch.ones_like(direction.norm())
        step = direction * (DIFFERENCE / condition * size / direction.norm())

        # A kernel that was moved may be separable no longer.
        def loss(kernel: Tensor, solver: str | None = "auto") -> Tensor:
            return _real((g.conj() * again(kernel, 1.0, solver)(y)).sum())

        learning = weight.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(learning, None), learning)
        with torch.no_grad():
            near = loss(weight + step) - loss(weight - step)
            far = loss(weight + 2.0 * step) - loss(weight - 2.0 * step)
        difference = (8.0 * near - far) / 12.0
        along = _real((gradient.conj() * step).sum())
        return {name: float((along - difference).abs() / (gradient.norm() * step.norm()))}

    allowed = DIFFERENCE**2 + subject.inverted / DIFFERENCE if subject.tol is None else subject.tol
    return subject.laws((name,), allowed, run)


def _data(subject: Subject, seed: int) -> Tensor:
    return random_images(subject.operator.out_shape, subject.operator, seed=seed)


def _picture(subject: Subject, seed: int) -> Tensor:
    return random_images(subject.operator.in_shape, subject.operator, seed=seed)


def _real(value: Tensor) -> Tensor:
    return value.real if value.is_complex() else value


def _weight(subject: Subject) -> Tensor:
    return cast(Conv2dOperator | AdjointOperator, subject.operator).convolution.weight.detach().clone()


def _maker(subject: Subject) -> tuple[Callable[[Tensor, float, str | None], Operator] | None, str]:
    """Return a way of making the pseudo-inverse for another kernel, or say why not.

    It takes the kernel, a scale by which thresholds and damping are multiplied, and a solver (None for the same).
    """
    operator, pinv = subject.operator, subject.pinv
    if not isinstance(operator, Conv2dOperator | AdjointOperator):
        return None, "the operator has no kernel that this package knows of"
    if not isinstance(pinv, PinvOperator):
        return None, "the pseudo-inverse was made elsewhere"
    problem = pinv.plan.problem
    regularization = problem.regularization

    def make(weight: Tensor, scale: float, solver: str | None) -> Operator:
        scaled = Conv2dOperator._of(Convolution(weight, operator.convolution.geometry))
        made = scaled.pinv(
            damp=scale * regularization.damp,
            atol=scale * regularization.atol if regularization.atol else None,
            rtol=None if regularization.is_default_cut else regularization.rtol,
            solver=solver or pinv.plan.solver.name,
            tol=problem.tolerance,
            max_iter=problem.max_iterations,
            applications=problem.applications,
        )
        return made.H if isinstance(operator, AdjointOperator) else made

    return make, ""
