"""Configuration: typed, strict, checked where it enters."""
