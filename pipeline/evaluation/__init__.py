"""From predictions alone: metrics, calibration, intervals, operating points, figures, report."""
