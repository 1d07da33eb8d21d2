"""Logit to probability: fitting, applying and judging calibration."""
