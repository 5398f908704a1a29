"""Pixels of one image or of many: masks, sky, noise, convolution, resampling, windows, blocks, coadds."""
