"""Manifests and other tables, their checks, lesions, splits, and preparation of cases."""
