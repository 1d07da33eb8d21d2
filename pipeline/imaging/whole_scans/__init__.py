"""Whole scans on one grid, and which of them can be searched."""
