"""The singular value decomposition goes on where LAPACK's gives up."""

import pytest
import torch

from convpinv.linalg import spectrum


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 4)], ids=str)
def test_what_defeats_it_in_a_matrix_does_not_in_its_adjoint(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.svdvals(matrices)
    original, calls = torch.linalg.svd, []

    def fails_once(*args: torch.Tensor, **options: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        calls.append(args)
        if len(calls) == 1:
            raise torch.linalg.LinAlgError("it did not converge")  # pyright: ignore[reportPrivateImportUsage]
        return original(*args, **options)

    monkeypatch.setattr(torch.linalg, "svd", fails_once)
    left, values, right = spectrum.decomposed(matrices)
    assert len(calls) == 2
    assert torch.allclose(values, expected)
    assert torch.allclose((left * values.unsqueeze(-2)) @ right, matrices)
    eye = torch.eye(values.shape[-1], dtype=dtype).expand(*shape[:-2], -1, -1)
    assert torch.allclose(left.mH @ left, eye)
    assert torch.allclose(right @ right.mH, eye)
