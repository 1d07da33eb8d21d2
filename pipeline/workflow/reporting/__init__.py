"""What jobs write and print: evaluation files, summaries, checklist answers."""
