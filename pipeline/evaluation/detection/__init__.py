"""Judging a detector from its candidates and the true lesions: FROC, localisation, calibration, and whole scans."""
