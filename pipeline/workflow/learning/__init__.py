"""From a configuration to a trained, saved and tracked model."""
