"""Lesion centres and diameters from what readers already save: masks, DICOM objects, markups, tables, LIDC's XML."""
