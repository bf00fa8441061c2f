"""What a convolution and its adjoint share: the pseudo-inverse, the singular values, the projections."""

from __future__ import annotations

from torch import Tensor

from convpinv.linalg import svd
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.linear_operator import LinearOperator
from convpinv.linalg.pinv import PinvOperator, prepare_pinv


class InvertibleOperator(LinearOperator):
    """A convolution or the adjoint of one: whatever is asked of it is asked of the convolution, once.

    ``(Aᴴ)⁺ = (A⁺)ᴴ``, and both have the same singular values.
    """

    convolution: Convolution
    _is_adjoint: bool

    def pinv(
        self,
        damp: float = 0.0,
        atol: float | None = None,
        rtol: float | None = None,
        solver: str = "auto",
        tol: float | None = None,
        max_iter: int | None = None,
        applications: int = 1,
    ) -> PinvOperator:
        r"""Moore-Penrose pseudo-inverse of this operator, prepared once to be applied often.

        .. math:: A^+ y = \arg\min_x \|A x - y\|^2 + \mathrm{damp}^2 \|x\|^2

        the shortest one where several x do equally well. Singular values at or below ``max(atol, rtol·σ₁)`` count as
        zero, σ₁ being the largest of the whole operator.

        Parameters
        ----------
        damp : float
            As in LSQR: the inverse of a singular value σ becomes σ/(σ² + damp²). In units of σ, at least 0.
        atol, rtol : float, optional
            Rank threshold, torch's words. Default where both are None: ``rtol = 4·ε·log2(H·W)``, with ε of the dtype;
            0 where atol is given.
        solver : "auto", "fourier", "separable", "dense" or "krylov"
            ``"auto"`` takes the first that serves at a sensible cost; :meth:`PinvOperator.explain` says which and why.
        tol : float, optional
            Relative residual at which iterations stop (default 1e-10 in double precision, 1e-6 in single). Where the
            error of the answer can be bounded by the residual, it is too: to 1000·tol in double, 10·tol in single.
        max_iter : int, optional
            Iterations before giving up (default 2000).
        applications : int
            How often you will apply it: a direct solver that is dear to prepare may pay.

        Returns
        -------
        PinvOperator
            Call it on outputs (B, Cout, H', W'); ``.H`` is its adjoint, ``.explain()`` the plan.

        Raises
        ------
        ArgumentError
            Negative or non-finite numbers, an unknown solver.
        SolverRefusedError
            The named solver cannot serve this operator; the message ends in one that can.
        ConvergenceError
            When applied: the iterations ended before their tolerance. ``.solve(y)`` returns the state instead.

        Notes
        -----
        The kernel's values are those of the moment: later changes of ``weight`` do not reach what is prepared.
        Gradients flow by y, to any order. Golub and Van Loan, *Matrix Computations*, 4th ed., section 5.5; damping
        as in Paige and Saunders, *LSQR*, ACM TOMS 8 (1982).

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.tensor([[[[0.2, 0.6, 0.2]]]]), (8, 8), padding="same",
        ...                             padding_mode="circular")
        >>> x = torch.rand(1, 8, 8)
        >>> bool(torch.allclose(A.pinv()(A(x)), x, atol=1e-5))
        True
        """
        prepared = prepare_pinv(self.convolution, damp, atol, rtol, solver, tol, max_iter, applications)
        return prepared.H if self._is_adjoint else prepared

    def svdvals(self) -> Tensor:
        """Singular values of the operator, largest first; see :func:`convpinv.linalg.svd.svdvals`."""
        return svd.svdvals(self.convolution)

    def norm(self) -> float:
        """Largest singular value: the spectral norm; see :func:`convpinv.linalg.svd.svdvals`."""
        return float(self.svdvals()[0])

    def cond(self) -> float:
        """Ratio of the largest to the smallest singular value; infinite where one is 0."""
        return svd.cond(self.convolution)

    def matrix_rank(self, atol: float | None = None, rtol: float | None = None) -> int:
        """Number of singular values above ``max(atol, rtol·σ₁)``; defaults as for :meth:`pinv`."""
        return svd.matrix_rank(self.convolution, atol, rtol)
