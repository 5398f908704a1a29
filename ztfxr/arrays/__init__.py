"""Array code: numpy in, numpy out; no xarray, no dask, no files."""
