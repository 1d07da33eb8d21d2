"""NIfTI: from a file to a checked volume."""
