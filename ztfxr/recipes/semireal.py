"""The main job from end to end on packaged semi-real epochs: what ``ztfxr demo`` runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ztfxr.io.frames import open_epochs, open_quadrant
from ztfxr.ops.stacks.stack import stack
from ztfxr.photometry.lightcurve import Method
from ztfxr.plot import plot_summary
from ztfxr.recipes.chain import (
    EXCLUDED,
    Finished,
    finish,
    measure,
    say,
    store,
    subtract,
    truth_table,
    with_noise,
)
from ztfxr.samples import make_epochs

__all__ = ["run_semireal"]


def run_semireal(folder: Path | str, *, n_epochs: int = 15, photometry: Method = "aperture") -> Finished:
    """Make semi-real epochs, difference them, measure the injected supernova, store, reopen and draw. Computes.

    Parameters
    ----------
    folder
        Gets the frames, the store ``lightcurve.zarr`` and the figure ``lightcurve.png``.
    n_epochs
        Number of epochs to make.
    photometry
        Sums in apertures, or forced fits of the reference's PSF.

    Returns
    -------
    Finished
        Its result is the light curve, as read back from the store.
    """
    folder = Path(folder)
    say(
        f"Making {n_epochs} semi-real epochs: a real ZTF cut-out seen through other seeing, sky, transparency,",
        "sub-pixel shift, noise and bad pixels, with one injected supernova. They are not observations.",
    )
    made = make_epochs(folder / "frames", n_epochs=n_epochs)
    reference = with_noise(open_quadrant(made.reference))
    frames = with_noise(stack(open_epochs(made.paths), like=reference))
    position = float(made.truth["x"]), float(made.truth["y"])
    say(f"Differencing {n_epochs} epochs of {frames.sizes['y']} × {frames.sizes['x']} px ...")
    diff = subtract(frames, reference, exclude=[position], exclude_radius=EXCLUDED)
    lc = measure(diff, [position], reference, photometry=photometry)
    path, figure = folder / "lightcurve.zarr", folder / "lightcurve.png"
    reopened = store({"lightcurve": lc, "difference": diff}, path)["lightcurve"].to_dataset().load()
    say(*truth_table(reopened, made.truth))
    best = int(np.argmax(made.truth["flux"].values))
    plot_summary(
        frames,
        reference,
        diff,
        reopened,
        epochs=sorted({0, best, n_epochs - 1}),
        truth=made.truth["flux"],
        truth_label="injected",
        position=position,
        path=figure,
    )
    return finish(reopened, path, figure)
