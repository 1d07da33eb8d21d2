"""Demonstration data, and public datasets as manifests."""
