"""Sources of images, catalogs beside them, and what both say together."""
