"""Whole scans for a detector: resampling to one grid, and checks whether they can be searched."""
