"""Everything that uses MLflow: runs, registry, promotion, pyfunc."""
