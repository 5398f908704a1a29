"""The named errors."""

from __future__ import annotations

import pickle

import pytest

from ztfxr import errors
from ztfxr.schema import STATUS_PLANES

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_all_names_every_class() -> None:
    defined = {n for n, c in vars(errors).items() if isinstance(c, type) and c.__module__ == errors.__name__}
    assert defined == set(errors.__all__)


@pytest.mark.parametrize("error", CLASSES)
def test_one_base_and_a_docstring(error: type[Exception]) -> None:
    assert issubclass(error, errors.ZtfxrError)
    assert error.__doc__
    assert error.__doc__.strip().endswith(".")


@pytest.mark.parametrize("error", [c for c in CLASSES if issubclass(c, errors.FrameError)])
def test_status_is_a_plane_of_the_schema(error: type[errors.FrameError]) -> None:
    assert error.status in {p.name for p in STATUS_PLANES}


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.NotFITSError, OSError),
        (errors.TruncatedFileError, OSError),
        (errors.MissingMaskError, FileNotFoundError),
        (errors.HeaderError, ValueError),
        (errors.OutsideFrameError, KeyError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_builtin_parents(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, builtin)


@pytest.mark.parametrize("error", CLASSES)
def test_message_is_plain_and_survives_pickle(error: type[Exception]) -> None:
    """Errors travel from dask workers; `KeyError` alone would quote its message."""
    message = "a frame's 'name': what was wrong"
    back = pickle.loads(pickle.dumps(error(message)))
    assert type(back) is error
    assert str(back) == message


def test_missing_dependency_names_the_extra() -> None:
    error = errors.MissingDependencyError.for_extra("fastavro", "alerts")
    assert str(error) == 'fastavro is not installed; it comes with an extra: pip install "ztfxr[alerts]"'
