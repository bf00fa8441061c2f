"""What is asked of an operator's singular values: all or some of them, bounds, condition, rank, determinant."""

from __future__ import annotations

from torch import Tensor

from convpinv.linalg import bounds, determinant, svd
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.determinant import SignLogDet
from convpinv.linalg.linear_operator import LinearOperator
from convpinv.linalg.precision import in_full_precision


class SpectralOperator(LinearOperator):
    """A convolution or the adjoint of one, and its singular values, which both have in common."""

    convolution: Convolution
    _is_adjoint: bool

    @in_full_precision
    def svdvals(self, k: int | None = None) -> Tensor:
        r"""Singular values of the operator, largest first: all of them, or the k largest.

        Exact for circular boundaries (the values of all ``K(w)``; Sedghi, Gupta and Long, ICLR 2019), for separable
        kernels (products of the values of two small matrices) and for small operators (the dense matrix). For all
        others the k largest come from a block Davidson iteration on ``AᴴA`` or ``A Aᴴ``, preconditioned by the symbol.

        Parameters
        ----------
        k : int, optional
            How many, 1 to ``min(prod(in_shape), prod(out_shape))``; where they are iterated for at most 512.
            Default all, which needs an exact way: a circular boundary, a separable kernel, or at most 4096 unknowns.

        Returns
        -------
        Tensor
            (k,) real values with their multiplicity (those that structure makes zero included), of the operator's real
            dtype and on its device. Cut off from the weight's gradient.

        Raises
        ------
        ArgumentError
            k out of range, or absent where no exact way serves.
        ConvergenceError
            The iteration ended before its error bound was met.

        Notes
        -----
        Computed in double precision. An iterated value s has a residual r of ``AᴴA`` with
        ``|s² − σ²| ≤ r ≤ max(2e-8·s², 2e-13·σ₁²)`` for a singular value σ: a relative error of at most 2e-8 unless s is
        below 3e-3·σ₁. That none above them was missed rests on a second iteration, from a random start in the
        complement of the first, and holds with probability one in exact arithmetic.
        Cost: one FFT and H·W/2 small decompositions; O(H³ + W³); O(N³); or some tens to hundreds of applications of A
        and its adjoint to 8 pictures. Up to 1024 unknowns, and where k is absent, the dense matrix is preferred.

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.ones(1, 1, 1, 1) * 2.0, (2, 2))
        >>> A.svdvals()
        tensor([2., 2., 2., 2.])
        >>> generator = torch.Generator().manual_seed(0)
        >>> A = convpinv.Conv2dOperator(torch.randn(1, 1, 5, 5, generator=generator), (96, 96), padding=2)
        >>> A.svdvals(k=3).shape
        torch.Size([3])
        """
        return svd.svdvals(self.convolution, k)

    @in_full_precision
    def norm(self) -> float:
        r"""Largest singular value: the spectral norm, ``max ‖A x‖ / ‖x‖``.

        Exact for circular boundaries, by Cholesky certificates instead of a decomposition for every frequency, for
        separable kernels and small operators; for all others the first value of :meth:`svdvals`, with its error bound.

        Returns
        -------
        float
            At least 0, computed in double precision whatever the dtype.

        Raises
        ------
        ConvergenceError
            As :meth:`svdvals`; :meth:`norm_bounds` never raises.

        Examples
        --------
        >>> import torch, convpinv
        >>> convpinv.Conv2dOperator(torch.ones(1, 1, 3, 3), (8, 8), padding=1, padding_mode="circular").norm()
        9.0
        """
        return svd.norm(self.convolution)

    @in_full_precision
    def norm_bounds(self) -> tuple[float, float]:
        r"""Lower and upper bound of :meth:`norm`, without an iteration that has to converge.

        .. math:: \|A\| \le \min\bigl(\sup_w \|K(w)\| \cdot \|\mathrm{pad}\|,\; \sqrt{\|A\|_1 \|A\|_\infty}\bigr)

        with the (polyphase) symbol K, the padding as a map of its own, whose norm is the root of the most copies of one
        pixel, and the largest column and row sums of absolute values (Schur's test). The supremum over all real
        frequencies is bounded from N samples by ``max / cos(π D / (2 N))`` for each axis (Ehlich and Zeller 1964).

        Returns
        -------
        (float, float)
            lower ≤ σ₁ ≤ upper. The lower one is a Rayleigh quotient after twelve steps of an iteration. Both
            leave room for rounding, 1e-11. With a circular boundary they are the norm itself; with zero padding of a
            picture much larger than the kernel the upper one is a few per cent above it; on boundaries that copy
            pixels it may be two or three times the norm.

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.rand(4, 3, 3, 3), (32, 32), stride=2, padding=1)
        >>> lower, upper = A.norm_bounds()
        >>> lower <= A.norm() <= upper
        True
        """
        return bounds.norm_bounds(self.convolution)

    @in_full_precision
    def cond(self) -> float:
        r"""Condition number: the largest singular value over the smallest of all ``min(m, n)``.

        From all values where an exact way serves (see :meth:`svdvals`). Elsewhere the smallest is one over the norm of
        the prepared pseudo-inverse, found by iteration on it (inverse iteration), after random pictures have shown
        whether the operator has full rank.

        Returns
        -------
        float
            At least 1. Infinite where the smallest value is at or below ``4·ε·log2(H·W)·σ₁`` with ε of double
            precision, in which everything is computed.

        Raises
        ------
        ConvergenceError
            Where no exact way serves, and the pseudo-inverse did not converge or is too inaccurate to tell.

        Notes
        -----
        Relative error below 1e-6 up to condition numbers of 1e8. For the condition number of the part that a
        pseudo-inverse keeps, divide two of the :meth:`svdvals`.

        Examples
        --------
        >>> import torch, convpinv
        >>> weight = torch.tensor([[[[3.0, 1.0]]]])
        >>> convpinv.Conv2dOperator(weight, (1, 2), padding="same", padding_mode="circular").cond()
        2.0
        """
        return svd.cond(self.convolution)

    @in_full_precision
    def matrix_rank(self, atol: float | None = None, rtol: float | None = None) -> int:
        """Number of singular values above ``max(atol, rtol·σ₁)``.

        Parameters
        ----------
        atol, rtol : float, optional
            Threshold, with the defaults of :meth:`pinv`: what is counted is what a pseudo-inverse inverts.

        Returns
        -------
        int
            Exact where :meth:`svdvals` gives all values. Elsewhere full rank is recognised by :meth:`cond`.

        Raises
        ------
        ArgumentError
            For a large operator without an exact way that is not of full rank, or cannot be seen to be.

        Notes
        -----
        In exact arithmetic a *valid* convolution of one channel always has full row rank and a *full* one full column
        rank. What is counted here is what stands above the threshold, which may be less.

        Examples
        --------
        >>> import torch, convpinv
        >>> box = convpinv.Conv2dOperator(torch.ones(1, 1, 4, 4), (64, 64), padding="same", padding_mode="circular")
        >>> box.matrix_rank()                # (1 − 3/64)² of all frequencies are not zero
        3721
        """
        return svd.matrix_rank(self.convolution, atol, rtol)

    @in_full_precision
    def slogdet(self) -> SignLogDet:
        r"""Sign and logarithm of the absolute determinant, like ``torch.linalg.slogdet`` of the dense matrix.

        .. math:: \det A = \pm \prod_w \det K(w)

        for a circular boundary, the sign being that of the permutation that splits a picture into the phases of the
        stride. For a separable kernel the product of the factors' determinants, for a small operator the dense one. For
        all others that of a periodic operator times that of the border matrix, ``det A = ± det C · det(D + T C⁻¹ S)``;
        the error of the logarithm grows with the condition number of C.

        Returns
        -------
        SignLogDet
            ``(sign, logabsdet)``: sign ±1 (of modulus 1 where complex; 0 for a determinant of 0) in the operator's
            dtype, the logarithm in its real dtype, both on its device. Cut off from the weight's gradient.

        Raises
        ------
        ArgumentError
            Where there are not as many outputs as inputs, or no exact way serves: the border matrix needs more than
            8 GB, the stride leaves no square symbol, or the periodic operator is singular.

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.rand(4, 1, 2, 2), (6, 6), stride=2)
        >>> sign, logabsdet = A.slogdet()
        >>> expected = torch.linalg.slogdet(A.to_dense())
        >>> bool(sign == expected.sign), bool(torch.isclose(logabsdet, expected.logabsdet, rtol=1e-3))
        (True, True)
        """
        sign, logarithm = determinant.slogdet(self.convolution)
        return determinant.SignLogDet(sign.conj() if self._is_adjoint else sign, logarithm)
