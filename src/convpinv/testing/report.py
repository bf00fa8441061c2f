"""What a check of all laws found, as a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Law:
    """One line of a report: a law, how far it is from holding, and how far it may be.

    ``error`` and ``tolerance`` are relative; ``error`` is None where the law was skipped, and infinite where evaluating
    it raised. ``note`` says why.
    """

    name: str
    error: float | None
    tolerance: float
    note: str = ""

    @property
    def is_broken(self) -> bool:
        """Whether it was tested and does not hold."""
        return self.error is not None and not self.error <= self.tolerance


@dataclass(frozen=True)
class Report:
    """What :func:`check_operator` found; prints as a table.

    ``condition`` is the ratio of the largest singular value to the smallest that is not cut, both with damping added
    in squares; None where the operator is too large to say. Errors below ``eps``, the rounding unit of the dtype, are
    printed as that: what they are is chance.
    """

    laws: tuple[Law, ...]
    condition: float | None
    eps: float

    @property
    def broken(self) -> tuple[Law, ...]:
        """Laws that do not hold."""
        return tuple(law for law in self.laws if law.is_broken)

    def __str__(self) -> str:
        known = "unknown" if self.condition is None else f"{self.condition:.2g}"
        width = max(len(law.name) for law in self.laws)
        lines = [f"condition number {known}", f"{'law':<{width}}  error    tolerance"]
        for law in self.laws:
            if law.error is None:
                lines.append(f"{law.name:<{width}}  skipped: {law.note}")
                continue
            verdict = "BROKEN" if law.is_broken else "holds"
            note = f": {law.note}" if law.note else ""
            lines.append(
                f"{law.name:<{width}}  {max(law.error, self.eps):<7.0e}  {law.tolerance:<9.0e}  {verdict}{note}"
            )
        return "\n".join(lines)
