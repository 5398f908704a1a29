"""Where things are: transforms between grids, registration by stars, projections, pairs on the sky."""
