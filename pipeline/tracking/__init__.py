"""MLflow, and nothing else that knows of it: runs, registry, promotion, pyfunc."""
