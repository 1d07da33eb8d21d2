"""The report: its page, figures, tables and checklist."""
