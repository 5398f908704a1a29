"""What array code raises where an image has no answer."""

from __future__ import annotations

__all__ = ["NoSolutionError"]


class NoSolutionError(Exception):
    """An image has no answer: no kernel, no PSF; `status` names a plane of `schema.STATUS_PLANES`."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status
