"""DICOM objects with results: structured reports and pictures of lesions."""
