"""Scoring with decoding on the CPU cores and the network on the GPU, beside the script of a MONAI user."""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import torch
from gpu_rows import Row, Setting, wait_for
from isal import igzip
from random_model import write_random_model
from torch import nn

from pipeline.cases.inputs import read_inputs
from pipeline.config.training import Network
from pipeline.scoring.engines.local import score_in_processes
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer

_NETWORK = "densenet121"
_BATCH = 2  # a worker hands over so many at a time; a GPU is far from busy with what the cores read
_SPACING_MM = (0.7, 0.7, 1.25)


def throughput(setting: Setting) -> list[Row]:
    """Cases a second of both sides, and how long the device waits."""
    folder = setting.folder / "scoring"
    side, batch = (32, 1) if setting.tiny else (64, _BATCH)
    shape = (64, 64, 48) if setting.tiny else (512, 512, 200)
    model = write_random_model(folder / "model", Network(name=_NETWORK), side=side)
    manifest = write_scans(folder / "scans", cases=2 if setting.tiny else setting.cores, shape=shape)
    repeats = 8 if setting.tiny else 12
    rate, waits = score_here(setting, model, manifest, repeats=repeats, batch=batch)
    alone = network_rate(setting, model, side=side, batch=batch)
    figures: dict[str, Any] = {"cases_per_second": rate, "network_alone": alone, "waits": waits}
    rows = [
        Row("cases per second here", f"{rate:.2f} ({setting.cores} cores read)", figures=figures),
        Row("the device waits", f"{waits:.0%} of the time; its network alone does {alone:.1f} cases per second"),
    ]
    if setting.stock_scoring is None:
        return [*rows, Row("against the stock script", "skipped: --stock-scoring was not given")]
    stock = score_stock(setting, manifest, folder / "stock.csv", side=side)
    said = f"{rate / stock:.2f} times its {stock:.2f} cases per second (its network on the device too)"
    return [*rows, Row("against the stock script", said, figures={"ratio": rate / stock, "stock": stock})]


def write_scans(folder: Path, *, cases: int, shape: tuple[int, int, int]) -> Path:
    """Write noisy CTs with a ball in the middle as .nii.gz, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.csv"
    numbers = range(cases)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda number: _write_scan(folder / f"{number:03d}.nii.gz", number, shape), numbers))
    header = ["case_id", "image", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system"]
    with open(manifest, "w", newline="") as handle:
        csv.writer(handle).writerows(
            [header, *([f"{number:03d}", f"{number:03d}.nii.gz", 0.0, 0.0, 0.0, "RAS"] for number in numbers)]
        )
    return manifest


def _write_scan(path: Path, number: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(number)
    voxels = np.empty(shape, np.int16)
    for plane in range(shape[2]):
        voxels[:, :, plane] = rng.normal(-850, 30, shape[:2])
    middle = np.array(shape) // 2
    reach = 6 + number % 4
    block = tuple(slice(at - reach, at + reach) for at in middle)
    voxels[block] += 880
    affine = np.diag([*_SPACING_MM, 1.0])
    affine[:3, 3] = -middle * _SPACING_MM
    path.write_bytes(igzip.compress(nib.Nifti1Image(voxels, affine).to_bytes(), compresslevel=1))


def score_here(setting: Setting, model: Path, manifest: Path, *, repeats: int, batch: int) -> tuple[float, float]:
    """Cases a second from the first rows to the last, and the share of that time in which no network ran."""
    inputs = read_inputs(manifest)
    setup = ScorerSetup((model,), root=inputs.root, device=setting.scoring_device)
    identity = Scorer(load_model(model), device="cpu").identity
    cases = itertools.chain.from_iterable(list(inputs.cases()) for _ in range(repeats))
    moments: list[float] = []
    with timed_scores() as spans:
        for row in score_in_processes(setup, cases, identity, batch_size=batch, workers=setting.cores):
            if row.probability is None:
                raise RuntimeError(f"{row.case_id}: {row.code} {row.reason}")
            moments.append(time.perf_counter())
    first = min(setting.cores * batch, len(moments) // 2)  # rows that were under way when the first came out
    begin, end = moments[first - 1], moments[-1]
    busy = sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in spans)
    return (len(moments) - first) / (end - begin), 1 - busy / (end - begin)


@contextmanager
def timed_scores() -> Iterator[list[tuple[float, float]]]:
    """When networks begin and end, of this process's scorers."""
    spans: list[tuple[float, float]] = []
    score = Scorer.score

    def noted(scorer: Scorer, *args: Any) -> Any:
        begin = time.perf_counter()
        rows = score(scorer, *args)
        spans.append((begin, time.perf_counter()))
        return rows

    Scorer.score = noted  # type: ignore[method-assign,assignment]
    try:
        yield spans
    finally:
        Scorer.score = score  # type: ignore[method-assign]


def network_rate(setting: Setting, model: Path, *, side: int, batch: int) -> float:
    """Cases a second of the model's prediction on inputs that are there already."""
    scorer = Scorer(load_model(model), device=setting.scoring_device)
    images = np.zeros((batch, 1, side, side, side), np.float32)
    scorer.predict(images)
    steps = 2 if setting.tiny else 20
    begin = time.perf_counter()
    for _ in range(steps):
        scorer.predict(images)
    wait_for(setting.device)
    return steps * batch / (time.perf_counter() - begin)


def score_stock(setting: Setting, manifest: Path, out: Path, *, side: int) -> float:
    """The stock script's own cases a second, with nothing changed but where its network runs."""
    assert setting.stock_scoring is not None
    spec = importlib.util.spec_from_file_location("stock_scoring", setting.stock_scoring)
    assert spec is not None
    assert spec.loader is not None
    stock = importlib.util.module_from_spec(spec)
    sys.modules["stock_scoring"] = stock  # its loader's processes look its transforms up by this name
    spec.loader.exec_module(stock)
    put_on_device(stock, "DenseNet121", setting.device)
    options = ["--workers", setting.cores, "--roi", side, "--network", _NETWORK]
    before, sys.argv = sys.argv, [str(setting.stock_scoring), str(manifest), str(out), *map(str, options)]
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            stock.main()
    finally:
        sys.argv = before
    return float(json.loads(said.getvalue().splitlines()[-1])["cases_per_second"])


def put_on_device(stock: ModuleType, name: str, device: str) -> None:
    """Have a network that the script builds compute on a device, and answer on the CPU."""
    build = getattr(stock, name)
    setattr(stock, name, lambda *args, **kwargs: _ThereAndBack(build(*args, **kwargs).to(device), device))


class _ThereAndBack(nn.Module):
    """Runs a network on a device for a caller that knows the CPU alone."""

    def __init__(self, network: nn.Module, device: str) -> None:
        super().__init__()
        self.network, self.device = network, device

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(torch.as_tensor(images).to(self.device)).cpu()
        return logits
