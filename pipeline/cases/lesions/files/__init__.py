"""Annotations in other files: masks, tables, 3D Slicer markups, LIDC XML."""
