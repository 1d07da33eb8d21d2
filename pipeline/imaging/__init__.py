"""From a path to a checked image in RAS with its geometry, and to the model's input."""
