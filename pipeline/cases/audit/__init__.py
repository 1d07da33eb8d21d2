"""What cases share that training and test must not: patients, scans, and images that look the same."""
