"""From a folder as people have it to a manifest: what its scans are, and what a table and file names say of them."""
