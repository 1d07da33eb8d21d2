"""Expected precision and sample sizes, computed before anything is trained."""
