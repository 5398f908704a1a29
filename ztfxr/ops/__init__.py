"""Labelled images to labelled images."""
