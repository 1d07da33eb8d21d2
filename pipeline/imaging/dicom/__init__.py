"""DICOM: from files to one checked series."""
