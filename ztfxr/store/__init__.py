"""Labeled objects to zarr stores and back."""
