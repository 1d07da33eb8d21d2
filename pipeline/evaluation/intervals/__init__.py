"""Intervals whose unit of sampling is the patient: bootstrap, DeLong, linearisation."""
