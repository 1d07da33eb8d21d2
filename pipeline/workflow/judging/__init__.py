"""Calibrating, judging and comparing models on labelled cases."""
