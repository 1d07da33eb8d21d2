"""A pipeline for binary malignancy classification of medical images, with calibrated probabilities."""
