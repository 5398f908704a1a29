"""Benchmarks of ztfxr in asv's form; `README.md` says how to run them."""
