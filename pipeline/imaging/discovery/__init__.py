"""Which files of a folder are scans, and which are none."""
