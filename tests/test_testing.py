"""check_operator: every law can break, all broken ones are listed at once, and what is skipped says why."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator
from convpinv.linalg import derivatives
from convpinv.linalg.spectrum import Regularization
from convpinv.testing import Report, check_operator, conv2d_operators


def convolution(dtype: torch.dtype = torch.float64, **options: Any) -> Conv2dOperator:
    weight = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return Conv2dOperator(weight, (5, 6), **{"padding": 1, **options})


class Mapped:
    """An operator of somebody else's: a map of tensors and its adjoint, of the operator that it imitates."""

    def __init__(self, like: Any, run: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> None:
        self.in_shape, self.out_shape = like.in_shape, like.out_shape
        self.dtype, self.device = like.dtype, like.device
        self._like, self._run, self._back = like, run, back

    @property
    def H(self) -> Mapped:
        return Mapped(self._like.H, self._back, self._run)

    def __call__(self, image: Tensor) -> Tensor:
        return self._run(image)

    def to_dense(self) -> Tensor:
        return self._like.to_dense()


def broken(operator: Any, pinv: Any, **options: Any) -> set[str]:
    with pytest.raises(AssertionError) as caught:
        check_operator(operator, pinv, **options)
    text = str(caught.value)
    rows = {line.split("  ")[0] for line in text.splitlines() if "  BROKEN" in line}
    # The first line names them all, the table shows them.
    assert re.match(rf"{len(rows)} of \d+ laws are broken: ", text)
    assert all(row in text.splitlines()[0] for row in rows)
    return rows


def laws(report: Report) -> dict[str, str]:
    return {law.name: "skipped" if law.error is None else "holds" for law in report.laws}


@given(conv2d_operators())
@settings(max_examples=25, deadline=None)
def test_holds_for_any_convolution_that_is_damped(operator: Conv2dOperator) -> None:
    for subject in (operator, operator.H):
        report = check_operator(subject, subject.pinv(damp=0.3))
        assert report.condition is not None
        assert set(laws(report).values()) == {"holds", "skipped"}
        assert [law.name for law in report.laws if law.error is None] == ["A A⁺ A = A", "A⁺ A A⁺ = A⁺"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_holds_undamped(dtype: torch.dtype, mode: str) -> None:
    operator = convolution(dtype, padding_mode=mode)
    report = check_operator(operator)
    assert not report.broken
    skipped = [law.name for law in report.laws if law.error is None]
    assert skipped == ([] if dtype in (torch.float64, torch.complex128) else ["gradient by the kernel"])
    # The tolerances are those that are documented.
    values = torch.linalg.svdvals(operator.to_dense())
    assert report.condition is not None
    assert report.condition == pytest.approx(float(values[0] / values[-1]), rel=1e-3)
    tolerances = {law.name: law.tolerance for law in report.laws}
    eps = torch.finfo(dtype).eps
    assert tolerances["⟨A x, y⟩ = ⟨x, Aᴴ y⟩"] == pytest.approx(100 * eps)
    assert tolerances["A A⁺ A = A"] == pytest.approx(100 * eps * report.condition)


@pytest.mark.parametrize("damp", [0.0, 0.4])
def test_iterations_may_be_off_by_their_residual(damp: float) -> None:
    operator = convolution(padding=0)
    report = check_operator(operator, operator.pinv(damp=damp, solver="krylov", tol=1e-9))
    assert report.condition is not None
    tolerances = {law.name: law.tolerance for law in report.laws}
    condition = report.condition
    expected = 100 * 2.0**-52 * condition + 1e-9 * condition * condition
    assert tolerances["A⁺ y by the dense matrix"] == pytest.approx(expected)


def test_an_operator_of_somebody_elses() -> None:
    A = convolution()
    P = A.pinv()
    foreign, inverse = Mapped(A, A, A.H), Mapped(P, P, P.H)
    report = check_operator(foreign, inverse)
    found = laws(report)
    assert [name for name, state in found.items() if state == "skipped"] == [
        "pinv(c·k) = pinv(k)/c",
        "gradient by the kernel",
    ]
    P = A.pinv(damp=0.4)
    check_operator(foreign, Mapped(P, P, P.H), damp=0.4)
    P = A.pinv(rtol=0.3)
    check_operator(foreign, Mapped(P, P, P.H), rtol=0.3)


# Every law can break

ADJOINT, OF_PINV = "⟨A x, y⟩ = ⟨x, Aᴴ y⟩", "⟨A⁺ y, x⟩ = ⟨y, A⁺ᴴ x⟩"
SUMS, MULTIPLES = "A⁺ (y + z) = A⁺ y + A⁺ z", "A⁺ (c y) = c A⁺ y"
PENROSE = ["A A⁺ A = A", "A⁺ A A⁺ = A⁺", "(A A⁺)ᴴ = A A⁺", "(A⁺ A)ᴴ = A⁺ A"]
NORMAL = "(AᴴA + damp²) A⁺ = Aᴴ"
DENSE = ["A⁺ y by the dense matrix", "(A⁺)ᴴ x by the dense matrix"]
IMAGE = "A x by its matrix"
GRADIENTS = ["gradient by y is A⁺ᴴ g", "derivative of that by g is A⁺"]


def test_a_wrong_adjoint() -> None:
    A = convolution()
    P = A.pinv()
    assert ADJOINT in broken(Mapped(A, A, lambda y: 1.01 * A.H(y)), Mapped(P, P, P.H))
    found = broken(Mapped(A, A, A.H), Mapped(P, P, lambda x: 1.01 * P.H(x)))
    assert found == {OF_PINV, PENROSE[2], PENROSE[3], DENSE[1], GRADIENTS[0]}


@pytest.mark.parametrize("damp", [0.0, 0.4])
def test_a_wrong_scale(damp: float) -> None:
    A = convolution()
    P = A.pinv(damp=damp)
    wrong = Mapped(P, lambda y: 1.01 * P(y), lambda x: 1.01 * P.H(x))
    expected = {*DENSE, NORMAL} if damp else {*DENSE, *PENROSE[:2]}
    assert broken(Mapped(A, A, A.H), wrong, damp=damp) == expected


def test_a_symmetric_identity_alone() -> None:
    # A generalised inverse that is not the Moore-Penrose one: it solves, and not by the shortest x.
    A = Conv2dOperator(convolution().weight[:1], (5, 6))  # full row rank
    P = A.pinv()
    matrix = A.to_dense()
    kernel = torch.linalg.svd(matrix)[2][-1]
    extra = torch.outer(kernel, torch.arange(1.0, len(matrix) + 1, dtype=matrix.dtype))
    inverse = torch.linalg.pinv(matrix) + 0.1 * extra
    found = broken(
        Mapped(A, A, A.H),
        Mapped(
            P,
            lambda y: (y.flatten(-3) @ inverse.mT).reshape(*y.shape[:-3], *A.in_shape),
            lambda x: (x.flatten(-3) @ inverse).reshape(*x.shape[:-3], *A.out_shape),
        ),
    )
    assert PENROSE[3] in found
    assert not {PENROSE[0], PENROSE[1], OF_PINV, SUMS} & found


def test_what_is_not_linear() -> None:
    A = convolution()
    P = A.pinv()
    found = broken(A, Mapped(P, lambda y: P(y) + 1e-3, P.H))
    assert {SUMS, MULTIPLES} <= found
    found = broken(A, Mapped(P, lambda y: P(torch.where(y.abs() > 1e-3, y, 0.0)), P.H))
    assert MULTIPLES in found


def test_a_wrong_matrix_and_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    A = convolution()
    P = A.pinv()
    monkeypatch.setattr(Mapped, "to_dense", lambda self: 1.01 * A.to_dense())
    assert IMAGE in broken(Mapped(A, A, A.H), Mapped(P, P, P.H))

    def fails(self: Mapped) -> Tensor:
        raise RuntimeError("no matrix today\nand more")

    monkeypatch.setattr(Mapped, "to_dense", fails)
    with pytest.raises(AssertionError, match=r"A x by its matrix .*BROKEN: raised RuntimeError: no matrix today\n"):
        check_operator(Mapped(A, A, A.H), Mapped(P, P, P.H))


def test_an_absolute_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Regularization, "threshold", lambda self, largest: torch.full_like(largest, 1e-3))
    assert broken(convolution(padding_mode="circular"), None) == {"pinv(c·k) = pinv(k)/c"}


def test_wrong_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    A = convolution()
    P = A.pinv()

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor) -> Tensor:
            return P(y)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return 1.01 * P.H(gradients[0])

    assert broken(A, Mapped(P, Wrong.apply, P.H)) == set(GRADIENTS)  # pyright: ignore[reportArgumentType]
    assert broken(A, Mapped(P, lambda y: P(y.detach()), P.H)) == set(GRADIENTS)
    gradient = derivatives.weight_gradient
    monkeypatch.setattr(derivatives, "weight_gradient", lambda *given: gradient(*given) * 1.001)
    for damp in (0.0, 0.4):
        assert broken(A, A.pinv(damp=damp)) == {"gradient by the kernel"}


def test_what_raises_is_broken_and_the_rest_is_still_said() -> None:
    A = convolution(padding=0)
    with pytest.raises(AssertionError) as caught:
        check_operator(A, A.pinv(damp=0.4, solver="krylov", max_iter=1))
    text = str(caught.value)
    assert "raised ConvergenceError: PinvOperator: Krylov stopped at max_iter" in text
    assert re.search(r"⟨A x, y⟩ = ⟨x, Aᴴ y⟩ .* holds", text)
    P = A.pinv()
    with pytest.raises(AssertionError, match="BROKEN"):  # NaN is no small error
        check_operator(A, Mapped(P, lambda y: P(y) * torch.nan, P.H))


# What is skipped says why


def line(report: Report, law: str) -> str:
    (found,) = [text for text in str(report).splitlines() if text.startswith(law)]
    return found


def test_skips_say_why() -> None:
    large = Conv2dOperator(torch.rand(1, 1, 3, 3), (40, 40), padding=1, padding_mode="circular")
    report = check_operator(large, large.pinv(damp=0.5))
    assert str(report).startswith("condition number unknown\n")
    assert "skipped: 1600 unknowns, over the limit of 1024" in line(report, DENSE[0])
    assert report.laws[1].tolerance == convpinv.testing.tolerance(torch.float32)
    assert check_operator(large, large.pinv(damp=0.5), dense_limit=1600).condition is not None

    box = Conv2dOperator(torch.ones(1, 1, 2, 2, dtype=torch.float64), (6, 8), padding="same", padding_mode="circular")
    assert "the rank is deficient" in line(check_operator(box), "gradient by the kernel")
    assert "holds" in line(check_operator(box, damp=0.1), "gradient by the kernel")

    report = check_operator(box, box.pinv(rtol=0.5))
    assert "skipped: the threshold cuts" in line(report, PENROSE[0])
    # 0.5·σ₁ is 2, and there are singular values near it.
    assert "too near the rank threshold" in line(report, DENSE[0])
    assert "holds" in line(report, PENROSE[1])

    bad = Conv2dOperator(torch.tensor([[[[1.0, 1.0 - 1e-5]]]]), (4, 4), padding="same", padding_mode="circular")
    report = check_operator(bad)
    assert "so badly conditioned that rounding leaves no digits" in line(report, PENROSE[0])
    report = check_operator(bad, tol=0.5)  # who says how much is taken at their word
    assert "holds" in line(report, PENROSE[0])


def test_a_kernel_of_zeros() -> None:
    report = check_operator(Conv2dOperator(torch.zeros(1, 1, 2, 2, dtype=torch.float64), 5), damp=0.1)
    assert report.condition == 1.0
    check_operator(Conv2dOperator(torch.zeros(1, 1, 2, 2, dtype=torch.float64), 5))


def test_a_given_tolerance_is_that_of_every_law() -> None:
    assert {law.tolerance for law in check_operator(convolution(), tol=1e-6).laws} == {1e-6}
    assert "A A⁺ A = A" in broken(convolution(), None, tol=1e-20)


def test_prints_a_table() -> None:
    text = str(check_operator(convolution(), damp=0.1)).splitlines()
    assert re.fullmatch(r"condition number [\d.]+", text[0])
    assert text[1].split() == ["law", "error", "tolerance"]
    assert all("holds" in row or "skipped: " in row for row in text[2:])
