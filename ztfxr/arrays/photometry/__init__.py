"""Fluxes of sources: apertures, detection, growth curves, magnitudes, artificial stars."""
