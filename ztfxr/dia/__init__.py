"""Difference image analysis."""
