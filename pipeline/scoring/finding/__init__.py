"""Finding lesions in whole scans: the detector's directory, candidates, and the search of one scan."""
