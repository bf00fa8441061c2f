"""What tiles need to know of a request; ``restoring.Request`` is one, and calls them, so it is not imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Request(Protocol):
    """The files and the options of ``convpinv deblur``; None is automatic."""

    @property
    def source(self) -> Path:
        """IN."""
        ...

    @property
    def target(self) -> Path:
        """OUT."""
        ...

    @property
    def psf(self) -> str:
        """``--psf``."""
        ...

    @property
    def prior(self) -> str:
        """``--prior``."""
        ...

    @property
    def strength(self) -> float | str | None:
        """``--strength``."""
        ...

    @property
    def noise(self) -> float | None:
        """``--noise``."""
        ...

    @property
    def boundary(self) -> str:
        """``--boundary``."""
        ...

    @property
    def device(self) -> str:
        """``--device``."""
        ...

    @property
    def report(self) -> Path | None:
        """``--report``."""
        ...

    @property
    def overwrite(self) -> bool:
        """``--overwrite``."""
        ...

    @property
    def mask(self) -> Path | None:
        """``--mask``."""
        ...

    @property
    def memory(self) -> str | None:
        """``--memory``."""
        ...

    @property
    def dry_run(self) -> bool:
        """``--dry-run``."""
        ...

    @property
    def workers(self) -> int | None:
        """``--workers``."""
        ...

    @property
    def scheduler(self) -> str | None:
        """``--scheduler``."""
        ...

    @property
    def resume(self) -> bool:
        """``--resume``."""
        ...
