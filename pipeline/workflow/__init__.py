"""What several jobs share: cohort, learning, judging, saving, reporting."""
