"""The command ``malignancy``: parse, call a job, exit code. Jobs are imported when they are called."""

from pipeline.cli.command_line import app, main, run

__all__ = ["app", "main", "run"]
