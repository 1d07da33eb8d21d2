"""Volumes whose voxels follow a header: what their readers share, and the formats beside NIfTI and DICOM."""
