"""Fluxes at fixed positions, and light curves."""
