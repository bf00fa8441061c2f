"""What a convolution and its adjoint share: the pseudo-inverse and the projections."""

from __future__ import annotations

from torch import Tensor

from convpinv.linalg.pinv import PinvOperator, Request, prepare_pinv
from convpinv.linalg.precision import in_full_precision
from convpinv.linalg.solvers.choose import Plan
from convpinv.linalg.spectral import SpectralOperator


class InvertibleOperator(SpectralOperator):
    """A convolution or the adjoint of one: whatever is asked of it is asked of the convolution, once.

    ``(Aᴴ)⁺ = (A⁺)ᴴ``, and both have the same singular values.
    """

    @in_full_precision
    def pinv(
        self,
        damp: float | Tensor = 0.0,
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
        damp : float or Tensor
            As in LSQR: the inverse of a singular value σ becomes σ/(σ² + damp²). In units of σ, at least 0. A real
            tensor without axes may require gradients.
        atol, rtol : float, optional
            Rank threshold, torch's words. Default where both are None: ``rtol = 4·ε·log2(H·W)``, with ε of the dtype;
            0 where atol is given.
        solver : "auto", "fourier", "blocks", "separable", "dense", "border" or "krylov"
            ``"auto"`` takes what needs the least time, by estimate, of those that are sure to serve;
            :meth:`PinvOperator.explain` says which, and why not the others.
        tol : float, optional
            Relative residual at which iterations stop (default 1e-10 in double precision, 1e-6 in single). Where the
            error of the answer can be bounded by the residual, it is too: to 1000·tol in double, 10·tol in single.
        max_iter : int, optional
            Iterations before giving up (default 2000).
        applications : int
            To how many pictures you will apply it: a direct solver that is dear to prepare may pay.

        Returns
        -------
        PinvOperator
            Call it on outputs (B, Cout, H', W'); ``.H`` is its adjoint, ``.explain()`` the plan.

        Raises
        ------
        ArgumentError
            Negative or non-finite numbers, an unknown solver; a weight or damping mapped by ``torch.func.vmap``.
        SolverRefusedError
            The named solver cannot serve this operator; the message ends in one that can.
        ConvergenceError
            When applied: the iterations ended before their tolerance. ``.solve(y)`` returns the state instead.
        GradientError
            In a backward pass: a derivative by a weight or damping that was changed since, or by the weight under an
            ``atol`` or ``rtol`` that cuts values which are not zero (with ``damp``: under any of your own).

        Notes
        -----
        The kernel's values are those of the moment: later changes of ``weight`` do not reach what is prepared.
        Gradients flow by y, by ``weight`` and by ``damp``, to any order; with ``damp = 0`` on the assumption that the
        rank stays (as in ``torch.linalg.pinv``). By y a gradient costs one application; by the weight three more
        where ``damp = 0``, one to five more else, and none of them records its iterations. Golub and Van Loan,
        *Matrix Computations*, 4th ed., section 5.5; damping as in Paige and Saunders, *LSQR*, ACM TOMS 8 (1982).

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.tensor([[[[0.2, 0.6, 0.2]]]]), (8, 8), padding="same",
        ...                             padding_mode="circular")
        >>> x = torch.rand(1, 8, 8)
        >>> bool(torch.allclose(A.pinv()(A(x)), x, atol=1e-5))
        True
        """
        request = Request.of(self.convolution, damp, atol, rtol, solver, tol, max_iter, applications)
        prepared = prepare_pinv(request)
        return prepared.H if self._is_adjoint else prepared

    @in_full_precision
    def plan(
        self,
        damp: float | Tensor = 0.0,
        atol: float | None = None,
        rtol: float | None = None,
        solver: str = "auto",
        tol: float | None = None,
        max_iter: int | None = None,
        applications: int = 1,
    ) -> Plan:
        """What :meth:`pinv` would do with the same arguments, and what that costs; nothing is prepared.

        Returns
        -------
        Plan
            ``print`` it: the solver, the memory and the work of preparing, the solvers that refuse and why.

        Raises
        ------
        ArgumentError, SolverRefusedError
            As :meth:`pinv` does.

        Notes
        -----
        Only facts that cost little are asked for. A solver may turn out not to suit the numbers when it prepares;
        then :meth:`pinv` goes on to the next one, and :meth:`PinvOperator.explain` says so.

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.rand(32, 32, 3, 3, dtype=torch.float64), (128, 128), padding=1)
        >>> A.plan().solver.name
        'border'
        """
        return Request.of(self.convolution, damp, atol, rtol, solver, tol, max_iter, applications).plan()

    @in_full_precision
    def project_null(
        self, x: Tensor, atol: float | None = None, rtol: float | None = None, solver: str = "auto"
    ) -> Tensor:
        r"""Part of a picture that this operator does not see: the projection on its null space.

        .. math:: x - A^+ A x

        Parameters
        ----------
        x : Tensor
            Pictures (..., C, H, W) of ``in_shape``.
        atol, rtol, solver
            As in :meth:`pinv`. Singular values that are cut belong to the null space.

        Returns
        -------
        Tensor
            Of x's shape, dtype and device; ``A`` of it is zero up to rounding and the threshold.

        Raises
        ------
        ArgumentError, SolverRefusedError, ConvergenceError
            As :meth:`pinv` and what it returns do.

        Notes
        -----
        Prepares the pseudo-inverse at each call. To project often keep ``P = A.pinv()`` and call
        :meth:`PinvOperator.project_null`. The error is of the order of the condition number times ε. Differentiable by
        x. Used to keep or to replace what a measurement says nothing about (Wang, Yu and Zhang, *DDNM*, ICLR 2023).

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.ones(1, 1, 2, 2, dtype=torch.float64), (8, 8), stride=2)
        >>> x = torch.rand(1, 8, 8, dtype=torch.float64)
        >>> float(A(A.project_null(x)).abs().max()) < 1e-12
        True
        """
        return self.pinv(atol=atol, rtol=rtol, solver=solver).project_null(x)

    @in_full_precision
    def project_range(
        self, y: Tensor, atol: float | None = None, rtol: float | None = None, solver: str = "auto"
    ) -> Tensor:
        r"""Part of the data that some picture explains: the projection on the range of this operator.

        .. math:: A A^+ y

        Parameters
        ----------
        y : Tensor
            Data (..., C', H', W') of ``out_shape``.
        atol, rtol, solver
            As in :meth:`pinv`.

        Returns
        -------
        Tensor
            Of y's shape, dtype and device. What is left, ``y − A A⁺ y``, is orthogonal to every ``A x``.

        Raises
        ------
        ArgumentError, SolverRefusedError, ConvergenceError
            As :meth:`pinv` and what it returns do.

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.rand(2, 1, 3, 3, dtype=torch.float64), (8, 8))
        >>> y = torch.rand(2, 6, 6, dtype=torch.float64)
        >>> rest = y - A.project_range(y)
        >>> float(A.H(rest).abs().max()) < 1e-10
        True
        """
        return self.pinv(atol=atol, rtol=rtol, solver=solver).project_range(y)
