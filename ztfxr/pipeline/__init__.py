"""The main job from end to end: frames to light curves in a store, on one machine or on a dask cluster, resumable."""

from ztfxr.pipeline.job import Job
from ztfxr.pipeline.planning import plan
from ztfxr.pipeline.runner import run
from ztfxr.pipeline.summary import summary

__all__ = ["Job", "plan", "run", "summary"]
