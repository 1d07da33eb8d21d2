"""Training a detector: patches, targets, losses, hard negatives, and the Lightning module."""
