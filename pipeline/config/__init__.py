"""Configuration: typed, strict, and checked when it is read."""
