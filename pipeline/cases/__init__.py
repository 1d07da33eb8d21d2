"""Manifests, their checks, splits, demo data and importers."""
