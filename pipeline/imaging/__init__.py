"""A path → a checked image in RAS with its geometry → the model's input."""
