"""Audit for leakage: patients, scans and similar images that training and test cases share."""
