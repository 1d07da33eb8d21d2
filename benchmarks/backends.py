#!/usr/bin/env python3
"""Inference of the project's networks on this CPU, by backend, in one run.

    python benchmarks/backends.py [--threads 1] [--batch-size 8]

Weights and inputs are drawn from a seed. Every backend is warmed up, then timed in turn, several rounds, and the
fastest round counts. The difference is the largest change of a probability from eager fp32 with contiguous weights, the
sigmoid of the bare logit. ``eager`` is what ``malignancy score`` uses (channels last); ``compile`` is measured only.
Prints a table, and last one JSON line; ``ratio`` is how much faster the default is than contiguous eager, the median
over networks.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
import warnings

import numpy as np
import torch

from pipeline.config.training import Network
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.models.networks import build_network
from pipeline.scoring.backends import BACKENDS, Predict, build_predict

NETWORKS = {
    "compact, 28^3": (Network(name="compact"), (28, 28, 28)),
    "planes, 40^3": (Network(name="planes"), (40, 40, 40)),
    "compact, 48^2": (Network(name="compact"), (48, 48)),
    "resnet18, 48^3": (Network(name="resnet18"), (48, 48, 48)),
    "densenet121, 64^3": (Network(name="densenet121"), (64, 64, 64)),
}
ROUNDS = 3


def plain(network: torch.nn.Module) -> Predict:
    """Eager PyTorch as it comes."""

    @torch.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(images)).double().numpy()

    return predict


def predictors(network: torch.nn.Module, shape: tuple[int, ...]) -> dict[str, Predict]:
    found = {"contiguous": plain(copy.deepcopy(network))}
    for backend in BACKENDS:
        found[backend] = build_predict(copy.deepcopy(network), backend, shape=(1, *shape))
    found["compile"] = plain(torch.compile(copy.deepcopy(network), dynamic=False))
    return found


def measure(network: torch.nn.Module, shape: tuple[int, ...], batch_size: int) -> dict[str, tuple[float, float]]:
    """Milliseconds per case and largest change of a probability, by backend."""
    images = np.random.default_rng(0).random((batch_size, 1, *shape), np.float32)
    found, expected = {}, None
    for name, predict in predictors(network, shape).items():
        try:
            probabilities = sigmoid(predict(images))
        except Exception as error:  # noqa: BLE001  # a backend that cannot run a network is a result
            print(f"{name} cannot run this network: {type(error).__name__}")
            continue
        expected = probabilities if expected is None else expected
        seconds = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            predict(images)
            seconds.append(time.perf_counter() - start)
        found[name] = (1000 * min(seconds) / batch_size, float(np.abs(probabilities - expected).max()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    names = ["contiguous", *BACKENDS, "compile"]
    print(f"milliseconds per case (largest change of a probability); batch {args.batch_size}, {args.threads} thread(s)")
    print("| network | " + " | ".join(names) + " |")
    print("|---|" + "---|" * len(names))
    table = {}
    for title, (config, shape) in NETWORKS.items():
        torch.manual_seed(0)
        network = build_network(config, dimensions=len(shape)).eval()
        table[title] = found = measure(network, shape, args.batch_size)
        cells = [f"{found[name][0]:.1f} ({found[name][1]:.0e})" if name in found else "-" for name in names]
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
    ratio = statistics.median(found["contiguous"][0] / found["eager"][0] for found in table.values())
    print(json.dumps({"ratio": round(ratio, 2), "threads": args.threads, "table": table}))


if __name__ == "__main__":
    main()
