"""Whole demonstration scans: one simulated half of a chest a patient, with the patient's real nodules in it."""
