"""Labelled objects to zarr stores and back."""
