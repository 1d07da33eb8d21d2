"""From a folder of scans, with or without a table, to a manifest: labels, patients and lesions of each scan."""
