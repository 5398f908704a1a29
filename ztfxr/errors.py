"""The errors that users meet, each a named class; all derive from `ZtfxrError`."""

from __future__ import annotations

__all__ = [
    "AlertError",
    "AlignmentError",
    "ArchiveError",
    "CatalogError",
    "ChunkError",
    "FilterError",
    "FrameError",
    "HeaderError",
    "InputError",
    "MatchFailedError",
    "MissingDependencyError",
    "MissingMaskError",
    "MissingWCSError",
    "NotFITSError",
    "OutsideFrameError",
    "PSFError",
    "RemoteFileError",
    "ShapeError",
    "StoreError",
    "TruncatedFileError",
    "ZtfxrError",
]


class ZtfxrError(Exception):
    """Base of every error that ztfxr raises on purpose."""


class InputError(ZtfxrError, ValueError):
    """An argument has a value that the function cannot use."""


class FrameError(ZtfxrError):
    """A frame cannot be used; `status` is the epoch status that a run records for it."""

    status: str = "unreadable"


class NotFITSError(FrameError, OSError):
    """The file is not FITS (a downloaded HTML page, for example)."""

    status = "not_fits"


class TruncatedFileError(FrameError, OSError):
    """The file ends before the pixels that its header announces."""

    status = "truncated"


class RemoteFileError(FrameError, OSError):
    """A file at a URL cannot be fetched: the server does not answer, or refuses."""

    status = "unreadable"


class MissingMaskError(FrameError, FileNotFoundError):
    """A science frame has no mask image beside it."""

    status = "missing_mask"


class HeaderError(FrameError, ValueError):
    """A header card is missing or has the wrong type."""

    status = "bad_header"


class ShapeError(FrameError, ValueError):
    """An image has another shape than the one it must go with."""

    status = "wrong_shape"


class MissingWCSError(FrameError, ValueError):
    """A sky position was asked of an image without a celestial WCS."""

    status = "no_wcs"


class AlignmentError(FrameError, ValueError):
    """Two images do not share one pixel grid."""

    status = "not_aligned"


class FilterError(FrameError, ValueError):
    """A frame of a run is of another filter than the reference."""

    status = "other_filter"


class MatchFailedError(ZtfxrError, ArithmeticError):
    """No kernel matches the two images: too few good pixels, or equations without a stable solution."""

    status = "solve_failed"


class PSFError(FrameError, ValueError):
    """A PSF file cannot be used, or does not agree with its own stamp of the center."""

    status = "bad_header"


class AlertError(FrameError, ValueError):
    """An alert packet cannot be used."""

    status = "unreadable"


class OutsideFrameError(ZtfxrError, KeyError):
    """A position falls outside the image."""

    status = "outside"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ArchiveError(ZtfxrError, OSError):
    """An archive or a service gave no usable answer, or refuses."""


class ChunkError(ZtfxrError, ValueError):
    """An image is chunked along a dimension that an operation needs whole."""


class CatalogError(ZtfxrError, OSError):
    """A catalog cannot be read, or the service that has it gave no usable answer."""


class StoreError(ZtfxrError, OSError):
    """A zarr store cannot be written or understood."""


class MissingDependencyError(ZtfxrError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def for_extra(cls, package: str, extra: str) -> MissingDependencyError:
        """The error for `package`, which the extra `extra` would have installed."""
        return cls(f'{package} is not installed; it comes with an extra: pip install "ztfxr[{extra}]"')


NOT_THE_FRAME = (InputError, ChunkError, StoreError, MissingDependencyError, MemoryError)
"""Errors that say that the call or the machine is at fault: among many frames they are raised, others are a status."""
