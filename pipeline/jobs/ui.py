"""``malignancy ui``: the MLflow UI, on this machine only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser

from pipeline.config.experiment import Tracking
from pipeline.tracking.store import open_store
from pipeline.tracking.views import View, prepare_views

_PATIENCE_SECONDS = 120.0  # until a server answers on a slow machine


def ui(port: int) -> None:
    """Serve the MLflow UI on 127.0.0.1 until Ctrl-C, and print the addresses of the pages that are prepared.

    The first one is opened in a browser where there is a desktop. A store that is a server has its own UI, whose
    addresses are printed. MLflow's default host patterns are loose (``10.evil.com`` passes), so the two names of this
    address are given.
    """
    store = open_store(Tracking())
    views = prepare_views(store)
    if store.uri.startswith("http"):
        print(f"MLflow UI: {store.shown}")
        _print(views, store.shown)
        return
    address = f"http://127.0.0.1:{port}"
    print(f"MLflow UI: {address} (store {store.shown}; Ctrl-C ends it)")
    _print(views, address)
    sys.stdout.flush()
    if views and sys.stdout.isatty() and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        code = f"from pipeline.jobs.ui import open_when_up; open_when_up({address!r}, {views[0].fragment!r})"
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)  # noqa: S603  # fixed arguments
    # The environment carries a URI that may hold a password; a command line is seen by every user of the machine.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = store.uri
    hosts = f"127.0.0.1:{port},localhost:{port}"
    command = [
        "mlflow",
        "server",
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


def open_when_up(address: str, fragment: str) -> None:
    """Open a page in the user's browser as soon as its server answers."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()  # noqa: S310  # the address of this machine
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
            continue
        webbrowser.open(address + fragment)
        return


def _print(views: tuple[View, ...], address: str) -> None:
    for view in views:
        print(f"{view.title}: {address}{view.fragment}")
