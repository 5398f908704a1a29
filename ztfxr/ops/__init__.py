"""Labeled images to labeled images."""
