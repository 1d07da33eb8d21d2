"""The promotion gate: conditions, power, comparisons, subgroups."""
