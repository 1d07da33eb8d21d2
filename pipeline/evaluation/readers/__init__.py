"""Several readers of the same cases: their agreement, the ceiling of their labels, and comparison with the model."""
