"""Light curves: baselines, photometric scales, smooth curves, statistics of variability."""
