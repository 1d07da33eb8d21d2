"""Output of jobs: evaluation files, summaries, checklist answers."""
