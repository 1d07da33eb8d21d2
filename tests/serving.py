"""The command ``serve`` running beside a test, asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from shared_data import ROOT

MIDDLE = {"center_x_mm": "0", "center_y_mm": "0", "center_z_mm": "0", "coordinate_system": "RAS"}


@dataclass
class Served:
    """A running server.

    Attributes:
        url: of it.
        process: the command.
        folder: that uploads are kept in meanwhile.
        log: file with its standard error.
    """

    url: str
    process: subprocess.Popen
    folder: Path
    log: Path

    def client(self, **settings) -> httpx.Client:
        return httpx.Client(base_url=self.url, **{"timeout": 60, "trust_env": False, **settings})

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a socket."""
        host, _, port = self.url.rpartition("//")[2].rpartition(":")
        return host, int(port)

    def uploads(self) -> list[Path]:
        """Files and folders of requests that are left."""
        return [path for path in self.folder.glob("malignancy-serve-*/*") if path.name != "lock"]


WITH_LIMITS = """
import json, sys
from pathlib import Path
from pipeline.jobs.serve import serve
from pipeline.service.settings import ServiceLimits, ServiceSettings
settings = json.loads(sys.argv[2])
limits = ServiceLimits(**settings.pop("limits"))
settings = ServiceSettings(port=0, temporary=Path.cwd(), limits=limits, **settings)
serve(sys.argv[1], settings, on_start=lambda url: print(url, flush=True))
"""


@contextlib.contextmanager
def serve(model: Path, folder: Path, *options: str, environment=None, settings=None):
    """Run the command until the block ends.

    Args:
        model: directory.
        folder: of uploads and of the log.
        options: of the command.
        environment: variables beside those of the test.
        settings: of the service, ``limits`` among them; those that the command has no option for are set so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pipeline", "serve", str(model), "--port", "0", "--workers", "2", *options]
    command += ["--temporary", str(folder)]
    if settings is not None:
        command = [sys.executable, "-c", WITH_LIMITS, str(model), json.dumps({"workers": 1, **settings})]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=folder) as process,
    ):
        try:
            line = process.stdout.readline().decode()
            found = re.match(r"https?://\S+", line)
            assert found, (line, (folder / "log").read_text())
            yield Served(found.group(), process, folder, folder / "log")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_ready(client: httpx.Client, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while client.get("/v2/health/ready").status_code != 200:
        assert time.monotonic() < end, "the server was never ready"
        time.sleep(0.1)


@contextlib.contextmanager
def serve_when_ready(model: Path, folder: Path, *options: str, **how):
    """As ``serve``; the block begins when the server is ready."""
    with serve(model, folder, *options, **how) as server:
        with server.client() as client:
            wait_until_ready(client)
        yield server


@contextlib.contextmanager
def mlflow_serves(path: str, folder: Path, *, environment=None):
    """Run ``mlflow models serve`` on a logged model until the block ends; a client of it, when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path_of_uvicorn = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", path, "--env-manager", "local"]
    with (
        open(folder / "mlflow_log", "wb") as log,
        subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": path_of_uvicorn, "OMP_NUM_THREADS": "1", **(environment or {})},
            cwd=folder,
            start_new_session=True,  # it starts processes of its own
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
    ):
        try:
            end = time.monotonic() + 120
            while not answers(client):
                assert process.poll() is None, (folder / "mlflow_log").read_text()
                assert time.monotonic() < end, "MLflow's server does not answer"
                time.sleep(0.2)
            yield client
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ping").status_code == 200
    except httpx.TransportError:
        return False
