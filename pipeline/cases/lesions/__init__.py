"""Lesion centres and diameters from annotation files: masks, DICOM objects, markups, tables, LIDC's XML."""
