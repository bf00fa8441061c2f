"""The laws that every operator and every pseudo-inverse obeys: how far each is from holding, and a check of it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Operator(Protocol):
    """What the checks ask of an operator: shapes, the map, its adjoint and its matrix."""

    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device

    @property
    def H(self) -> Operator:
        """Adjoint."""
        ...

    def __call__(self, image: Tensor, /) -> Tensor:
        """Apply to a picture or a batch."""
        ...

    def to_dense(self) -> Tensor:
        """Matrix."""
        ...


def random_images(shape: tuple[int, int, int], like: Operator, seed: int = 0, batch: int = 2) -> Tensor:
    """Standard normal pictures (batch, *shape) in an operator's dtype and on its device, the same for the same seed.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.ones(1, 1, 3, 3), (6, 6))
    >>> convpinv.testing.random_images(A.in_shape, A).shape
    torch.Size([2, 1, 6, 6])
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, generator=generator, dtype=like.dtype).to(like.device)


def tolerance(dtype: torch.dtype) -> float:
    """Relative error that the checks allow by default: about the cube root of ε, squared."""
    return 1e-9 if torch.finfo(dtype).eps < 1e-10 else 2e-4


@torch.no_grad()
def check_adjoint(operator: Operator, tol: float | None = None) -> float:
    """Check ``⟨A x, y⟩ = ⟨x, Aᴴ y⟩`` on random pictures (the dot-test).

    Parameters
    ----------
    operator : Operator
        Anything with ``in_shape``, ``out_shape``, ``dtype``, ``device``, ``H`` and a call.
    tol : float, optional
        Largest error allowed, relative to ‖A x‖·‖y‖.

    Returns
    -------
    float
        The error found.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.rand(2, 1, 3, 3), (8, 8), padding=1, padding_mode="reflect")
    >>> convpinv.testing.check_adjoint(A) < 1e-4
    True
    """
    return _judge(adjoint_errors(operator), tolerance(operator.dtype) if tol is None else tol)


def adjoint_errors(operator: Operator) -> dict[str, float]:
    """Error of the dot-test, relative to ‖A x‖·‖y‖ or ‖x‖·‖Aᴴ y‖, whichever is larger."""
    x = random_images(operator.in_shape, operator, seed=1)
    y = random_images(operator.out_shape, operator, seed=2)
    image, back = operator(x), operator.H(y)
    # vdot over the whole batch: the operator is block-diagonal over pictures.
    left = torch.vdot(image.flatten(), y.flatten())
    right = torch.vdot(x.flatten(), back.flatten())
    scale = torch.maximum(image.norm() * y.norm(), x.norm() * back.norm())
    return {"⟨A x, y⟩ = ⟨x, Aᴴ y⟩": float((left - right).abs() / scale) if float(scale) > 0 else 0.0}


@torch.no_grad()
def check_penrose(operator: Operator, pinv: Operator, tol: float | None = None) -> float:
    """Check the four Penrose identities on random pictures; they hold for exactly one operator, A⁺ (damp = 0).

    ``A A⁺ A = A``, ``A⁺ A A⁺ = A⁺``, ``(A A⁺)ᴴ = A A⁺`` and ``(A⁺ A)ᴴ = A⁺ A`` (Penrose, 1955).

    Parameters
    ----------
    operator, pinv : Operator
        A and what is claimed to be its undamped pseudo-inverse.
    tol : float, optional
        Largest relative error allowed. An operator of condition number κ deserves about κ·ε.

    Returns
    -------
    float
        The largest of the four errors.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.rand(2, 1, 3, 3, dtype=torch.float64), (8, 8))
    >>> convpinv.testing.check_penrose(A, A.pinv()) < 1e-9
    True
    """
    return _judge(penrose_errors(operator, pinv), tolerance(operator.dtype) if tol is None else tol)


def penrose_errors(operator: Operator, pinv: Operator) -> dict[str, float]:
    """Relative error of each Penrose identity."""
    x = random_images(operator.in_shape, operator, seed=3)
    y = random_images(operator.out_shape, operator, seed=4)
    image, inverse = operator(x), pinv(y)
    return {
        "A A⁺ A = A": relative_error(operator(pinv(image)), image),
        "A⁺ A A⁺ = A⁺": relative_error(pinv(operator(inverse)), inverse),
        "(A A⁺)ᴴ = A A⁺": relative_error(pinv.H(operator.H(y)), operator(inverse), y),
        "(A⁺ A)ᴴ = A⁺ A": relative_error(operator.H(pinv.H(x)), pinv(image), x),
    }


@torch.no_grad()
def check_against_dense(
    operator: Operator, pinv: Operator, damp: float = 0.0, rtol: float | None = None, tol: float | None = None
) -> float:
    """Check a pseudo-inverse and its adjoint against ``torch.linalg`` on the dense matrix. For small operators.

    Parameters
    ----------
    operator, pinv : Operator
        A, and what is claimed to be its pseudo-inverse.
    damp : float
        Damping that ``pinv`` was made with.
    rtol : float, optional
        Relative rank threshold that ``pinv`` was made with; default the one of :meth:`Conv2dOperator.pinv`.
    tol : float, optional
        Largest relative error allowed.

    Returns
    -------
    float
        The larger of the two errors.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.rand(1, 1, 3, 3, dtype=torch.float64), (8, 8), padding=1)
    >>> convpinv.testing.check_against_dense(A, A.pinv(damp=0.1), damp=0.1) < 1e-9
    True
    """
    matrix = operator.to_dense()
    if damp:
        gram = matrix.mH @ matrix + damp**2 * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
        inverse = torch.linalg.solve(gram, matrix.mH)
    else:
        from convpinv.linalg.spectrum import default_rtol

        height, width = operator.in_shape[1:]
        inverse = torch.linalg.pinv(
            matrix, rtol=default_rtol(operator.dtype, (height, width)) if rtol is None else rtol
        )
    return _judge(dense_errors(operator, pinv, inverse), tolerance(operator.dtype) if tol is None else tol)


def dense_errors(operator: Operator, pinv: Operator, inverse: Tensor) -> dict[str, float]:
    """Relative error of a pseudo-inverse and of its adjoint against a matrix, which may be in higher precision."""
    x = random_images(operator.in_shape, operator, seed=5)
    y = random_images(operator.out_shape, operator, seed=6)
    return {
        "A⁺ y": relative_error(pinv(y).flatten(1), y.flatten(1).to(inverse.dtype) @ inverse.mT),
        "(A⁺)ᴴ x": relative_error(pinv.H(x).flatten(1), x.flatten(1).to(inverse.dtype) @ inverse.conj()),
    }


def relative_error(value: Tensor, reference: Tensor, scale: Tensor | None = None) -> float:
    """Distance relative to the reference, or to what went in where the reference may be a small part of it."""
    size = float((reference if scale is None else scale).norm())
    return float((value - reference).norm()) / size if size > 0 else float(value.norm())


def _judge(errors: dict[str, float], tol: float) -> float:
    broken = {law: error for law, error in errors.items() if not error <= tol}
    if broken:
        raise AssertionError(
            "; ".join(f"{law} is off by {error:.2e}" for law, error in broken.items())
            + f" (relative; tolerance {tol:.1e})"
        )
    return max(errors.values())
