"""Windows against `numpy.pad`, shifted windows against the resampled whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztfxr.arrays.geometry.transform import Transform
from ztfxr.arrays.images.resample import resample
from ztfxr.arrays.images.windows import Windows, gather, gather_shifted

SHAPE = (31, 27)
FAR = 200

places = st.lists(st.tuples(st.floats(-60, 90), st.floats(-60, 90)), max_size=6)
sides = st.tuples(st.integers(1, 40), st.integers(1, 40))


def windows(where: list[tuple[float, float]], size: tuple[int, int], origin: tuple[int, int] = (0, 0)) -> Windows:
    pairs = np.array(where, dtype=float).reshape(-1, 2)
    return Windows((pairs[:, 0], pairs[:, 1]), size, origin)


@given(places, sides, st.tuples(st.integers(-20, 20), st.integers(-20, 20)))
def test_gather_is_numpy_pad(where: Any, size: tuple[int, int], origin: tuple[int, int]) -> None:
    """Whole, or from the part of the image that the windows say they need."""
    pixels = np.arange(2 * SHAPE[0] * SHAPE[1]).reshape(2, *SHAPE)
    padded = np.pad(pixels, [(0, 0), (FAR, FAR), (FAR, FAR)], constant_values=-7)
    want = windows(where, size, origin)
    found = gather(pixels, starts=want.starts, sides=size, fill=-7)
    assert found.shape == (2, len(where), *size)
    for i, position in enumerate(where):
        rows, columns = (
            slice(c, c + n)
            for c, n in (
                (int(np.floor(p + 0.5)) - n // 2 - o + FAR, n) for p, n, o in zip(position, size, origin, strict=True)
            )
        )
        np.testing.assert_array_equal(found[:, i], padded[:, rows, columns])
    part = want.part(SHAPE)
    near = want.within(part)
    again = gather(pixels[:, part[0], part[1]], starts=near.starts, sides=size, fill=-7)
    np.testing.assert_array_equal(again, found)
    used = (found[0] >= 0).any()
    assert used == (part != (slice(0, 0), slice(0, 0)))
    if used:
        for axis in (1, 2):
            lines = np.unique(np.nonzero(np.isin(pixels, found))[axis])
            assert (part[axis - 1].start, part[axis - 1].stop) == (lines[0], lines[-1] + 1)


@given(places, sides)
def test_on_image(where: Any, size: tuple[int, int]) -> None:
    want = windows(where, size)
    stamps = gather(np.ones(SHAPE), starts=want.starts, sides=size, fill=0)
    inside, some, whole = want.on_image(SHAPE)
    assert some.tolist() == stamps.any(axis=(1, 2)).tolist()
    assert whole.tolist() == stamps.all(axis=(1, 2)).tolist()
    expected = [all(-0.5 <= p < n - 0.5 for p, n in zip(pair, SHAPE, strict=True)) for pair in where]
    assert inside.tolist() == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_positions_without_a_pixel(bad: float) -> None:
    want = windows([(bad, 3.0), (3.0, bad), (3.0, 3.0)], (3, 3))
    assert want.known.tolist() == [False, False, True]
    assert [s.tolist() for s in want.shifts] == [[0, 0, 0], [0, 0, 0]]
    assert [m.tolist() for m in want.on_image(SHAPE)] == [[False, False, True]] * 3
    found = gather(np.ones(SHAPE), starts=want.starts, sides=(3, 3), fill=np.nan)
    assert np.isnan(found[:2]).all()
    assert (found[2] == 1).all()


@settings(max_examples=40)
@given(
    places,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from(["lanczos3", "spline"]),
    st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
)
def test_shifted_windows_are_windows_of_the_shifted_image(
    where: Any, size: tuple[int, int], interpolation: Any, origin: tuple[int, int]
) -> None:
    """Resampling what a window rests on gives what resampling the whole image by the same shift gives."""
    rng = np.random.default_rng(3)
    image = rng.normal(100, 10, SHAPE)
    variance, bad = rng.uniform(1, 2, SHAPE), rng.random(SHAPE) < 0.02
    flags = np.where(bad, 256, 2).astype(np.uint16)
    want = windows(where, size, origin)
    options: Any = {"spread": 256, "outside": 1 << 15, "interpolation": interpolation}
    found = gather_shifted(image, variance, bad, flags, windows=want, **options)
    for i in range(len(where)):
        starts, shifts = [int(s[i]) for s in want.starts], [float(s[i]) for s in want.shifts]
        whole = resample(
            image,
            Transform.shift(shifts[1], shifts[0]),
            size,
            variance=variance,
            bad=bad,
            flags=flags,
            target_origin=(starts[0], starts[1]),
            **options,
        )
        for part, expected in zip(found, whole, strict=True):
            np.testing.assert_allclose(part[i], expected, rtol=2e-4)


def test_shifted_windows_of_no_position() -> None:
    found = gather_shifted(
        np.ones(SHAPE),
        None,
        np.zeros(SHAPE, bool),
        None,
        windows=windows([], (3, 5)),
        interpolation="lanczos3",
        spread=0,
        outside=9,
    )
    assert found.image.shape == found.bad.shape == found.flags.shape == (0, 3, 5)
