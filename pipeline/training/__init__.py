"""Training on prepared cases: Lightning module, loaders, the tracker protocol."""
