"""Registration by stars: random transforms are recovered among outliers; what has no answer is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ztfxr.arrays.geometry.registration import Stars, find_stars, fit_pairs, match_patterns, register_stars
from ztfxr.arrays.geometry.transform import Transform, fit_transform
from ztfxr.errors import AlignmentError, InputError

SHAPE = (500, 480)


def field(n: int, seed: int, size: float = 500.0) -> Stars:
    """Random stars with the fluxes of a real field, brightest first."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, size, (2, n))
    return Stars(x, y, np.sort(rng.pareto(1.2, n))[::-1] * 1000 + 100, np.ones(n, bool))


def seen(target: Stars, transform: Transform, *, missing: float, extra: int, error: float, seed: int) -> Stars:
    """The stars as another image has them: moved, some lost, some new, fluxes off by a fifth."""
    rng = np.random.default_rng(seed + 1000)
    x, y = transform(target.x, target.y)
    kept = rng.random(len(x)) >= missing
    x, y = (np.r_[p[kept] + rng.normal(0, error, kept.sum()), rng.uniform(0, 500, extra)] for p in (x, y))
    flux = np.r_[target.flux[kept] * np.exp(rng.normal(0, 0.2, kept.sum())), rng.choice(target.flux, extra)]
    order = np.argsort(-flux)
    return Stars(x[order], y[order], flux[order], np.ones(len(x), bool))


def worst(found: Transform, truth: Transform) -> float:
    """The largest distance between two transforms on the frame."""
    x, y = (p.ravel() for p in np.meshgrid(np.linspace(0, 500, 5), np.linspace(0, 500, 5)))
    return float(max(np.hypot(*(a - b for a, b in zip(found(x, y), truth(x, y), strict=True)))))


@settings(max_examples=25)
@given(
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.9, 1.1),
    dx=st.floats(-80, 80),
    dy=st.floats(-80, 80),
    shear=st.floats(-0.003, 0.003),
    missing=st.floats(0, 0.4),
    extra=st.integers(0, 60),
    n=st.integers(60, 300),
    seed=st.integers(0, 50),
)
def test_affine_transforms_are_recovered(
    angle: float, scale: float, dx: float, dy: float, shear: float, missing: float, extra: int, n: int, seed: int
) -> None:
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1 + shear, shear], [0, 1 - shear]])
    center = np.array([250.0, 250.0])
    truth = Transform.affine(matrix, center - matrix @ center + (dx, dy))
    target = field(n, seed)
    found = register_stars(seen(target, truth, missing=missing, extra=extra, error=0.05, seed=seed), target)
    assert worst(found, truth) < 0.15
    assert found.rms < 0.12
    assert found.n_matched > 0.3 * min(n, 100)


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_of_few_stars(seed: int) -> None:
    target, truth = field(12, seed), Transform.shift(31.4, -27.2)
    found = register_stars(seen(target, truth, missing=0, extra=3, error=0.02, seed=seed), target, kind="shift")
    assert (found.kind, found.order) == ("shift", 0)
    assert worst(found, truth) < 0.03


def test_a_polynomial_where_the_field_is_bent() -> None:
    target = field(400, 3)
    u, v = (target.x - 250) / 250, (target.y - 250) / 250
    bent = Stars(target.x + 20 + 1.5 * u**2, target.y - 8 - 1.2 * u * v, target.flux, target.good)
    affine = register_stars(bent, target, tolerance=3.0)
    found = register_stars(bent, target, kind="polynomial", order=2, tolerance=3.0)
    assert found.rms < 1e-6 < 0.1 < affine.rms
    assert found.n_matched == 240


@pytest.mark.parametrize(("a", "b"), [(80, 80), (5, 80), (300, 300)])
def test_unrelated_fields_are_refused(a: int, b: int) -> None:
    with pytest.raises(AlignmentError, match="no common star pattern") as caught:
        match_patterns(field(a, 1), field(b, 2))
    assert caught.value.status == "not_registered"


def test_too_few_stars_are_refused() -> None:
    with pytest.raises(AlignmentError, match="3 stars in the image and 50 in the target"):
        match_patterns(field(3, 1), field(50, 2))
    with pytest.raises(AlignmentError, match="0 stars"):
        match_patterns(field(0, 1), field(0, 2))


@given(outliers=st.integers(0, 25), kind=st.sampled_from(["shift", "affine", "polynomial"]), seed=st.integers(0, 99))
def test_fits_ignore_outliers(outliers: int, kind: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 1000, (80, 2))
    source = target + np.array([12.0, -7.0]) + rng.normal(0, 0.02, (80, 2))
    source[:outliers] += rng.uniform(1, 50, (outliers, 2))
    fit = fit_pairs(source, target, kind=kind, order=2)
    px, py = fit(target[:, 0], target[:, 1])
    assert np.hypot(px - target[:, 0] - 12, py - target[:, 1] + 7).max() < 0.05
    assert 80 - outliers - 8 <= fit.n_matched <= 80 - outliers
    assert fit.rms == pytest.approx(0.02 * np.sqrt(2), rel=0.35)


def test_fits_need_stars() -> None:
    with pytest.raises(AlignmentError, match="5 stars in common, but a transform of kind 'affine' needs 9"):
        fit_pairs(np.ones((5, 2)), np.ones((5, 2)))
    with pytest.raises(AlignmentError, match="0 stars in common"):
        fit_pairs(np.full((20, 2), np.nan), np.ones((20, 2)), kind="shift")
    with pytest.raises(InputError, match="kind is"):
        fit_transform(np.ones((5, 2)), np.ones((5, 2)), kind="rotation")  # type: ignore[arg-type]


# ---- transforms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shift", "affine", "polynomial"])
def test_grid_call_area_and_inverse_agree(kind: Any) -> None:
    rng = np.random.default_rng(4)
    target = rng.uniform(100, 3000, (200, 2))
    u = (target - 1500) / 1500
    bend = {"shift": 0.0, "affine": 0.0, "polynomial": 1.0}[kind] * np.column_stack([u[:, 0] ** 3, u[:, 0] * u[:, 1]])
    turn = 0.0 if kind == "shift" else 0.01
    source = target + (5.0, 6.0) + turn * target[:, ::-1] + bend
    fit = fit_transform(source, target, kind=kind, order=3)
    assert fit.rms < 1e-8
    x, y = np.linspace(100, 3000, 7), np.linspace(100, 3000, 5)
    xs, ys, area = fit.on_grid(x, y)
    xx, yy = np.meshgrid(x, y)
    np.testing.assert_allclose((xs, ys), fit(xx, yy), rtol=1e-12)
    (x1, y1), (x0, y0) = fit(xx + 0.5, yy), fit(xx - 0.5, yy)
    (x3, y3), (x2, y2) = fit(xx, yy + 0.5), fit(xx, yy - 0.5)
    np.testing.assert_allclose(area, np.abs((x1 - x0) * (y3 - y2) - (y1 - y0) * (x3 - x2)), rtol=1e-6)
    back = fit.inverse((100, 3000, 100, 3000))
    tolerance = 0.02 if kind == "polynomial" else 1e-9
    np.testing.assert_allclose(back(xs, ys), (xx, yy), atol=tolerance)
    with pytest.raises(InputError, match="give bounds"):
        fit_transform(source, target, kind="polynomial", order=3).inverse()


def test_similarity_turns_and_scales() -> None:
    transform = Transform.similarity(2j, 1 + 0j)
    np.testing.assert_allclose(transform(3.0, 4.0), (1 - 8, 6))
    np.testing.assert_allclose(transform.matrix, [[0, -2], [2, 0]])
    assert Transform.shift().identity
    assert not transform.identity


# ---- detection -------------------------------------------------------------------------------------------------------


def image_of(x: Any, y: Any, flux: Any, fwhm: float = 3.0) -> NDArray[np.float64]:
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sigma = fwhm / 2.3548
    out = np.random.default_rng(0).normal(300.0, 8.0, SHAPE)
    for px, py, f in zip(x, y, flux, strict=True):
        out += f * np.exp(-((xx - px) ** 2 + (yy - py) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    return out


def stars_on_a_grid() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(2)
    x, y = (p.ravel() for p in np.meshgrid(np.arange(30, 460, 40.0), np.arange(30, 480, 40.0)))
    return x + rng.uniform(-5, 5, x.size), y + rng.uniform(-5, 5, x.size), np.geomspace(2e3, 2e5, x.size)


def test_stars_are_found_in_place_and_order() -> None:
    x, y, flux = stars_on_a_grid()
    stars = find_stars(image_of(x, y, flux), origin=(1000, 2000))
    assert len(stars) == len(x)
    np.testing.assert_allclose(stars.x[:60], x[::-1][:60] + 2000, atol=0.02)
    np.testing.assert_allclose(stars.y[:60], y[::-1][:60] + 1000, atol=0.02)
    assert stars.good.mean() > 0.95


def test_saturated_stars_are_not_trusted() -> None:
    x, y, flux = stars_on_a_grid()
    image = np.minimum(image_of(x, y, flux), 10_000).astype(np.uint16)
    stars = find_stars(image, saturation=9_999)
    full = flux * 4 * np.log(2) / np.pi / 9 + 300
    n = int((full > 11_500).sum())
    assert n > 10
    assert not stars.brightest(n).good.any()
    assert stars.good.sum() > 50
    same = find_stars(image.astype(float), saturated=image >= 9_999)
    np.testing.assert_array_equal(same.xy, stars.xy)
    np.testing.assert_array_equal(same.good, stars.good)


def test_bad_pixels_make_no_stars() -> None:
    x, y, flux = stars_on_a_grid()
    image = image_of(x, y, flux)
    bad = np.zeros(SHAPE, bool)
    bad[:, 250] = bad[100, :] = True
    image[bad] = np.where(np.arange(bad.sum()) % 2, np.nan, 6e4)
    stars = find_stars(image, bad)
    assert len(stars) <= len(x)
    near = np.min(np.hypot(stars.x[:, None] - x, stars.y[:, None] - y), axis=1)
    assert near[stars.good].max() < 0.2


def test_a_steep_sky_hides_no_star() -> None:
    x, y = (p[:80] for p in stars_on_a_grid()[:2])
    image = image_of(x, y, np.full(80, 2.5e3))[:140, :140] + 3.0 * np.arange(140)
    inside = (y > 15) & (y < 130) & (x < 130)
    near = cKDTree(find_stars(image).xy).query(np.column_stack([x, y])[inside])[0]
    assert inside.sum() == 9
    assert near.max() < 0.2


def test_blends_are_not_trusted() -> None:
    x, y, flux = stars_on_a_grid()
    stars = find_stars(image_of(np.r_[x, x[-1] + 5.0], np.r_[y, y[-1]], np.r_[flux, flux[-1] * 0.5]))
    close = np.hypot(stars.x - x[-1], stars.y - y[-1]) < 7
    assert close.sum() == 2
    assert not stars.good[close].any()


@pytest.mark.parametrize(("image", "message"), [(np.full((64, 64), np.nan), "no good pixel")])
def test_images_without_stars_are_refused(image: NDArray[Any], message: str) -> None:
    with pytest.raises(AlignmentError, match=message):
        find_stars(image)


def test_pure_noise_has_no_pattern() -> None:
    noise = find_stars(np.random.default_rng(0).normal(100, 5, SHAPE))
    with pytest.raises(AlignmentError, match="a pattern needs at least 4"):
        match_patterns(noise, field(100, 1))


# ---- pixels that do not move with the sky ----------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(20.0, -13.0), (0.15, 0.1), (0.0, 0.0)])
@pytest.mark.parametrize(("n", "height", "reach"), [(200, 20_000.0, 0), (40, 5_000.0, 1), (200, 800.0, 1)])
def test_hot_pixels_do_not_hold_the_sky_in_place(shift: tuple[float, float], n: int, height: float, reach: int) -> None:
    """Failure A28: more hot pixels, or warm blobs, than stars gave a shift of (0, 0) with an rms of 0.001."""
    rng = np.random.default_rng(4)
    x, y, flux = rng.uniform(-20, 500, 60), rng.uniform(-20, 520, 60), np.geomspace(3e3, 1e5, 60)
    hot = np.zeros(SHAPE)
    for row, column in zip(rng.integers(3, 497, n), rng.integers(3, 477, n), strict=True):
        hot[row - reach : row + reach + 1, column - reach : column + reach + 1] = height
    noise = rng.normal(0, 8.0, SHAPE)
    moved = find_stars(image_of(x + shift[0], y + shift[1], flux) + hot + noise)
    found = register_stars(moved, find_stars(image_of(x, y, flux) + hot), kind="shift")
    np.testing.assert_allclose(found.coefficients[:, 0], shift, atol=0.01)
    assert found.rms < 0.1
