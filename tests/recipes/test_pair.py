"""The one-call analyst on semi-real frames: fluxes, log, extensions, the original untouched."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import ztfxr
from ztfxr.samples import make_epochs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_epochs(tmp_path_factory.mktemp("frames"), n_epochs=4, bad_fraction=0.0005, seed=5)


@pytest.fixture(scope="module")
def frames(made):
    pair = ztfxr.open_quadrant(made.paths[2]), ztfxr.open_quadrant(made.reference)
    return [f.assign(variance=f.ztf.variance(method="photon")) for f in pair]


@pytest.fixture(scope="module")
def catalog(made):
    """The supernova, a few stars of the frame, and one far off it."""
    return [(float(made.truth.x), float(made.truth.y)), (60.0, 200.0), (230.0, 60.0), (120.0, 90.0), (5000.0, 5000.0)]


@pytest.fixture(scope="module")
def result(frames, catalog):
    return ztfxr.difference_photometry(
        *frames, positions=catalog, size=250, kernel_size=9, radius=7, method="none", exclude=catalog[:1]
    )


def test_the_catalog_is_measured_on_the_cutout(result, made):
    assert result.sizes["source"] == 4
    assert (result.sizes["y"], result.sizes["x"]) == (250, 250)
    assert abs(float(result.flux[0]) - float(made.truth.flux[2])) < 4 * float(result.flux_err[0])
    assert float(result.flux[0]) > 5 * float(result.flux_err[0])
    assert float(np.abs(result.flux[1:] / result.flux_err[1:]).max()) < 5
    good = ~result.mask.values
    np.testing.assert_allclose((result.model + result.difference).values[good], result.aligned.values[good], rtol=1e-4)


def test_the_cutout_is_centered_where_asked(frames):
    sky = ztfxr.pixel_to_sky(frames[1], 150, 160)
    center = (float(sky.ra.deg), float(sky.dec.deg))
    out = ztfxr.difference_photometry(
        *frames, positions=[(150.0, 160.0)], center=center, size=101, kernel_size=9, method="none"
    )
    assert (int(out.x[0]), int(out.y[0])) == (100, 110)


def test_frames_are_aligned_by_their_wcs(frames, catalog, made):
    shifted = ztfxr.drop_wcs(frames[0]).isel(x=slice(3, None)).assign_coords(x=np.arange(297))
    header = fits.Header.fromstring(frames[0].attrs["wcs_header"], sep="\n")
    header["CRPIX1"] -= 3
    shifted = ztfxr.assign_wcs(shifted, header)
    out = ztfxr.difference_photometry(
        shifted, frames[1], positions=catalog, kernel_size=9, radius=7, method="wcs", exclude=catalog[:1]
    )
    assert abs(float(out.flux[0]) - float(made.truth.flux[2])) < 4 * float(out.flux_err[0])
    assert out.attrs["log"][1].startswith("aligned")


def test_the_log_tells_what_was_done(frames, catalog, caplog):
    caplog.set_level("INFO", logger="ztfxr")
    out = ztfxr.difference_photometry(*frames, positions=catalog, size=120, kernel_size=9, method="none")
    assert caplog.messages == out.attrs["log"]
    assert "kernel sum" in out.attrs["log"][2]


@pytest.mark.slow
def test_the_catalog_by_psf_fits(frames, catalog, result):
    out = ztfxr.difference_photometry(
        *frames, positions=catalog, size=250, kernel_size=9, photometry="psf", method="none", exclude=catalog[:1]
    )
    assert "4 stars by PSF fits" in out.attrs["log"][-1]
    assert float(out.flux_err[0]) < float(result.flux_err[0])
    assert abs(float(out.flux[0] - result.flux[0])) < 3 * float(result.flux_err[0])


def test_extensions_follow_those_of_the_source_which_is_untouched(result, made, tmp_path):
    before = hashlib.sha256(made.paths[2].read_bytes()).hexdigest()
    path = tmp_path / "out.fits"
    ztfxr.to_extensions(result, path, source=made.paths[2])
    assert hashlib.sha256(made.paths[2].read_bytes()).hexdigest() == before
    with fits.open(path) as hdus, fits.open(made.paths[2]) as old:
        np.testing.assert_array_equal(hdus[0].data, old[0].data)
        names = [h.name for h in hdus[1:]]
        assert names[:5] == ["ALIGNED", "DIFFERENCE", "DIFFERENCE_VARIANCE", "MODEL", "MASK"]
        np.testing.assert_array_equal(hdus["DIFFERENCE"].data, result.difference.values)
        np.testing.assert_allclose(hdus["PHOTOMETRY"].data["flux"], result.flux.values)
        np.testing.assert_allclose(hdus["PHOTOMETRY"].data["source_ra"], result.source_ra.values)
        assert "kernel sum" in hdus["LOG"].data["line"][2]
        wcs = WCS(hdus["DIFFERENCE"].header)
        sky = ztfxr.pixel_to_sky(result, float(result.x[7]), float(result.y[3]))
        np.testing.assert_allclose(wcs.all_pix2world(7, 3, 0), [sky.ra.deg, sky.dec.deg], atol=1e-9)
    assert [p.name for p in tmp_path.iterdir()] == ["out.fits"]
    with pytest.raises(ztfxr.StoreError, match="exists already"):
        ztfxr.to_extensions(result, path)
    ztfxr.to_extensions(result, path, overwrite=True)
    with fits.open(path) as hdus:
        assert hdus[0].data is None


def test_extensions_are_compressed_where_the_name_says_so(result, made, tmp_path):
    """A source of any length and packing is followed byte for byte."""
    packed, odd = tmp_path / "source.fits.gz", tmp_path / "odd.fits"
    bytes_of_source = made.paths[2].read_bytes()
    packed.write_bytes(gzip.compress(bytes_of_source))
    odd.write_bytes(bytes_of_source.rstrip(b"\0"))
    for source in (packed, odd):
        path = tmp_path / f"out_of_{source.name}.gz" if source is odd else tmp_path / "out.fits.gz"
        ztfxr.to_extensions(result, path, source=source)
        assert gzip.decompress(path.read_bytes())[: len(bytes_of_source)] == bytes_of_source
        with fits.open(path) as hdus:
            np.testing.assert_array_equal(hdus["MODEL"].data, result.model.values)
    with pytest.raises(ztfxr.InputError, match="a FITS file is named"):
        ztfxr.to_extensions(result, tmp_path / "out.txt")


def test_a_file_of_its_own_needs_no_source(result, tmp_path):
    ztfxr.to_extensions(result, tmp_path / "own.fits")
    with fits.open(tmp_path / "own.fits") as hdus:
        assert hdus[0].data is None
        assert "KERNEL_ERR" in hdus
    with pytest.raises(ztfxr.StoreError, match="cannot be written"):
        ztfxr.to_extensions(result, tmp_path / "no" / "folder.fits")


def test_a_catalog_elsewhere_is_an_error(frames):
    with pytest.raises(ztfxr.InputError, match="no catalog star lies on the cut-out"):
        ztfxr.difference_photometry(*frames, positions=[(900.0, 900.0)], method="none", kernel_size=9)
