"""``malignancy ui``: the MLflow UI, on this machine only."""

from __future__ import annotations

import os
import sys

from pipeline.config.experiment import Tracking
from pipeline.tracking.store import open_store


def ui(port: int) -> None:
    """Serve the MLflow UI on 127.0.0.1 until Ctrl-C.

    MLflow's default host patterns are loose (``10.evil.com`` passes), so the two names of this address are given.
    """
    uri = open_store(Tracking()).uri
    hosts = f"127.0.0.1:{port},localhost:{port}"
    print(f"MLflow UI: http://127.0.0.1:{port} (store {uri}; Ctrl-C ends it)", flush=True)
    command = [
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--allowed-hosts",
        hosts,
        "--workers",
        "1",
    ]
    os.execv(sys.executable, [sys.executable, "-m", *command])  # noqa: S606  # fixed arguments, no shell
