#!/usr/bin/env python3
"""Scoring over HTTP: ``malignancy serve`` beside ``mlflow models serve`` on the same model, in one run on one machine.

    python benchmarks/serving_speed.py [--seconds 10] [--clients 1 4 16] [--requests 1000]

Both servers get the same scan, a CT crop as .nii.gz, as a client elsewhere has to send it: as a file, and to MLflow in
base64 inside JSON. A third line has MLflow read the scan from its own disk by path, which no client elsewhere can ask
for. Each client is a thread of a process of its own with one kept connection, and sends the next request when it has
the answer. Every answer is read as strict JSON and its probability compared with the first one's. Processor time is
that of the server's processes, which other work on the machine changes less than the rate.

Then ``--requests`` further requests go to ours from four clients, and the memory of the server and of its workers
(proportional set size) is read after each tenth. Prints tables, and last one JSON line with ``ratio`` (our requests per
second over MLflow's, base64, with the most clients) first.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

SIDE = 32  # voxels of 1 mm that the network sees
BINARY = Path(sys.executable).parent
FIELDS = {"center_x_mm": 0.0, "center_y_mm": 0.0, "center_z_mm": 0.0, "coordinate_system": "RAS"}


@dataclass(frozen=True)
class Ask:
    """One kind of request: where it goes, what it says, and where the answer has the probability."""

    port: int
    path: str
    body: bytes
    content_type: str
    rows: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="that each line is measured")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--network", default="compact", help="compact, resnet18, densenet121, ...")
    parser.add_argument("--scan", type=int, nargs=3, default=[96, 96, 64], help="voxels of 1 mm")
    parser.add_argument("--requests", type=int, default=1000, help="of the memory measurement")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        print(json.dumps(load(**json.loads(sys.stdin.read()))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder, args.network)
        scan = make_scan(folder / "scan.nii.gz", args.scan)
        measured, memory = measure(folder, scan, args)
    report(measured, memory, args)


def make_model(folder: Path, network: str) -> None:
    """A model directory, and the same as a logged MLflow model, in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from random_model import write_random_model\n"
        "from pipeline.config.training import Network; import pipeline.tracking.registry as registry\n"
        f"folder = write_random_model(Path(sys.argv[1]), Network(name={network!r}), side={SIDE})\n"
        "import mlflow\n"
        "mlflow.pyfunc.save_model(sys.argv[2], python_model=str(Path(registry.__file__).with_name('pyfunc.py')),\n"
        "    artifacts={'model_directory': str(folder)}, pip_requirements=[], model_config={'root': '.'})\n"
    )
    command = [sys.executable, "-c", code, str(folder / "model"), str(folder / "pyfunc")]
    search = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": search}, capture_output=True)


def make_scan(path: Path, shape: list[int]) -> Path:
    """A CT crop of noise with a bright ball in its middle."""
    import nibabel as nib

    voxels = np.random.default_rng(0).normal(-850, 22, shape).astype(np.int16)
    middle = [side // 2 for side in shape]
    voxels[tuple(slice(place - 6, place + 6) for place in middle)] += 880
    affine = np.eye(4)
    affine[:3, 3] = [-place for place in middle]
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def measure(folder: Path, scan: Path, args: argparse.Namespace) -> tuple[dict, dict]:
    """Figures by server and number of clients, and memory over many requests; one server runs at a time."""
    measured: dict[str, dict[int, dict[str, float]]] = {}
    with our_server(folder, args.workers) as (port, process):
        ask = our_ask(port, scan)
        measured["malignancy serve"] = {count: timed(ask, count, args.seconds, process) for count in args.clients}
        memory = watch_memory(ask, process, args.requests)
    with mlflow_server(folder, scan.parent) as (port, process):
        for name, how in (("mlflow models serve, base64", "base64"), ("mlflow models serve, path", "path")):
            ask = mlflow_ask(port, scan, how)
            measured[name] = {count: timed(ask, count, args.seconds, process) for count in args.clients}
    probabilities = [line["probability"] for lines in measured.values() for line in lines.values()]
    if max(probabilities) - min(probabilities) > 1e-6:
        sys.exit(f"the servers do not say the same: {probabilities}")
    return measured, memory


def our_ask(port: int, scan: Path) -> Ask:
    """The scan as a file, in a multipart body."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in FIELDS.items()
    ]
    parts.append(f'--b\r\nContent-Disposition: form-data; name="file"; filename="{scan.name}"\r\n\r\n')
    body = "".join(parts).encode() + scan.read_bytes() + b"\r\n--b--\r\n"
    return Ask(port, "/v1/score", body, "multipart/form-data; boundary=b", "rows")


def mlflow_ask(port: int, scan: Path, how: str) -> Ask:
    """The scan in base64, or by its path on the server."""
    record = {**FIELDS, "image": scan.name}
    if how == "base64":
        record["image_base64"] = base64.b64encode(scan.read_bytes()).decode()
    body = json.dumps({"dataframe_records": [record]}).encode()
    return Ask(port, "/invocations", body, "application/json", "predictions")


@contextlib.contextmanager
def our_server(folder: Path, workers: int) -> Iterator[tuple[int, psutil.Process]]:
    """``malignancy serve``, ready."""
    port = free_port()
    command = [sys.executable, "-m", "pipeline", "serve", str(folder / "model"), "--port", str(port)]
    with running([*command, "--workers", str(workers)], folder) as process:
        wait_for(port, "/v2/health/ready", process)
        yield port, psutil.Process(process.pid)


@contextlib.contextmanager
def mlflow_server(folder: Path, root: Path) -> Iterator[tuple[int, psutil.Process]]:
    """``mlflow models serve``, ready."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(folder / "pyfunc"),
        "--env-manager",
        "local",
    ]
    with running([*command, "--port", str(port)], folder, MALIGNANCY_MODEL_ROOT=str(root)) as process:
        wait_for(port, "/ping", process)
        yield port, psutil.Process(process.pid)


@contextlib.contextmanager
def running(command: list[str], folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a session of its own, ended with all its processes."""
    path = os.pathsep.join([str(BINARY), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, **variables}
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int, path: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers with 200."""
    end = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    sys.exit(f"no answer from {' '.join(map(str, process.args))}")  # type: ignore[arg-type]


def timed(ask: Ask, clients: int, seconds: float, server: psutil.Process) -> dict[str, float]:
    """Figures of so many clients, with the server's processor time a request."""
    before = cpu_seconds(server)
    figures = ask_all(ask, clients, seconds)
    return {**figures, "cpu_ms": 1000 * (cpu_seconds(server) - before) / (figures["requests"] + 1)}


def cpu_seconds(server: psutil.Process) -> float:
    """Processor time of all processes of a server."""
    return sum(sum(each.cpu_times()[:2]) for each in [server, *server.children(recursive=True)])


def ask_all(ask: Ask, clients: int, seconds: float = 0.0, requests: int = 0) -> dict[str, float]:
    """Send requests from a process of its own, so that its threads take no time from this one's clock."""
    given = {
        "port": ask.port,
        "path": ask.path,
        "body": base64.b64encode(ask.body).decode(),
        "content_type": ask.content_type,
        "rows": ask.rows,
        "clients": clients,
        "seconds": seconds,
        "requests": requests,
    }
    command = [sys.executable, __file__, "--load", "yes"]
    done = subprocess.run(command, input=json.dumps(given), stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def load(
    *, port: int, path: str, body: str, content_type: str, rows: str, clients: int, seconds: float, requests: int
) -> dict[str, float]:
    """Requests per second, and the percentiles of their latency in ms, after one that is not counted.

    Without ``seconds`` so many ``requests`` are sent in all.
    """
    data = base64.b64decode(body)
    latencies: list[float] = []
    answers: set[float] = set()
    busy = [0]

    def strict(name: str) -> float:
        raise ValueError(f"{name} is no JSON")

    def send(connection: http.client.HTTPConnection) -> float:
        start = time.perf_counter()
        connection.request("POST", path, data, {"Content-Type": content_type})
        answer = connection.getresponse()
        text = answer.read()
        spent = time.perf_counter() - start
        if answer.status == 503:
            busy[0] += 1
            time.sleep(float(answer.headers["Retry-After"]))
            return send(connection)
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {text[:300]!r}")
        answers.add(json.loads(text, parse_constant=strict)[rows][0]["probability"])
        return spent

    send(http.client.HTTPConnection("127.0.0.1", port, timeout=120))
    share = -(-requests // clients)
    begin = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        sent = 0
        while time.perf_counter() - begin < seconds if seconds else sent < share:
            latencies.append(send(connection))
            sent += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - begin
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    if max(answers) - min(answers) > 1e-6:
        raise RuntimeError(f"one scan has several probabilities: {sorted(answers)}")
    return {
        "rate": len(latencies) / spent,
        "p50_ms": p50,
        "p99_ms": p99,
        "requests": len(latencies),
        "busy": busy[0],
        "probability": min(answers),
    }


def watch_memory(ask: Ask, server: psutil.Process, requests: int) -> dict:
    """Memory in MB of the server and of all its processes, before and after each tenth of so many requests."""
    figures = [memory_mb(server)]
    for _ in range(10):
        ask_all(ask, 4, requests=requests // 10)
        figures.append(memory_mb(server))
    return {"requests": requests, "server_mb": [one for one, _ in figures], "all_mb": [both for _, both in figures]}


def memory_mb(server: psutil.Process) -> tuple[float, float]:
    """Proportional set size of the server, and with its processes."""
    own = server.memory_full_info().pss / 2**20
    return own, own + sum(child.memory_full_info().pss / 2**20 for child in server.children(recursive=True))


def report(measured: dict, memory: dict, args: argparse.Namespace) -> None:
    print(
        f"{args.network}, {SIDE} voxels, a scan of {' x '.join(map(str, args.scan))} voxels, {args.workers} workers\n"
    )
    print(f"{'server':30} {'clients':>7} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>7}")
    for name, lines in measured.items():
        for clients, line in lines.items():
            print(
                f"{name:30} {clients:7} {line['rate']:10.1f} {line['p50_ms']:8.1f} {line['p99_ms']:8.1f}"
                f" {line['cpu_ms']:7.1f}"
            )
    print(f"\nmemory over {memory['requests']} requests, MB: server {memory['server_mb'][0]:.0f} to ", end="")
    print(f"{memory['server_mb'][-1]:.0f}, with its workers {memory['all_mb'][0]:.0f} to {memory['all_mb'][-1]:.0f}")
    most = max(args.clients)
    ours = measured["malignancy serve"][most]["rate"]
    ratios = {name: ours / lines[most]["rate"] for name, lines in measured.items()}
    figures = {"ratio": ratios["mlflow models serve, base64"], "ratio_path": ratios["mlflow models serve, path"]}
    print(json.dumps({**figures, "measured": measured, "memory": memory}))


if __name__ == "__main__":
    main()
