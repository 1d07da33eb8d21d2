"""Imported by the server that forks the command's workers, and by nothing else: see `pipeline.imaging.lean_monai`."""

from pipeline.imaging.lean_monai import install

install()

import pipeline.scoring.engines.worker_process  # noqa: E402, F401  # not before MONAI is lean
