"""Thresholds, the refer zone, net benefit, and what another prevalence makes of them."""
