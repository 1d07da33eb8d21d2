"""Training, judging and reporting a detector of lesions in whole scans."""
