"""Thresholds, the refer zone and net benefit, also restated for another prevalence."""
