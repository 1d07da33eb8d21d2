"""From prepared cases to weights: Lightning module, loaders, the tracker protocol."""
