"""DICOM objects that say what was scored: structured reports and pictures of lesions."""
