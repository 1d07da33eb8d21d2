"""Annotations in DICOM objects: segmentations, RT structure sets, structured reports."""
