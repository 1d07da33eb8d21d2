#!/usr/bin/env python3
"""Searching a real-sized CT and scoring what is found, beside the detector of MONAI's public bundle, in one run.

    python benchmarks/finding_speed.py [--threads 2] [--config configs/demo_find.yaml]

The CT is made on the spot: 512 x 512 x 300 voxels of 0.7 x 0.7 x 1 mm with two lungs, as .nii.gz. Our side is what a
worker of ``malignancy score MODEL CT --find DETECTOR`` does with it, in a process of its own: decoding it once, the
search, and a DenseNet121 at 64 voxels of 1 mm for every candidate. Weights are drawn from a seed, which for time makes
no difference, but for the number of candidates: it is the most that the detector may give (64).

The other side is the network of MONAI's bundle ``lung_nodule_ct_detection`` (RetinaNet on a ResNet-50 with features of
two levels, random weights) over the sliding windows that the bundle's configuration asks for: 512 x 512 x 192 voxels,
a quarter of overlap, on the CT at its 0.703 x 0.703 x 1.25 mm. One smaller window is timed, after one to warm up, and
its time is scaled by the voxels of all windows; decoding, resampling, boxes and a second stage are left out, in its
favour. Both sides have the same threads. Prints a table, and last one JSON line, ``ratio`` (its CPU seconds over ours)
first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from random_model import write_random_model
from torch import nn

from pipeline.cases.case import Case
from pipeline.config.detection import CandidateRules, DetectionGrid, DetectorNetwork
from pipeline.config.training import Network
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.machine import peak_memory_megabytes
from pipeline.models.detector import Detector
from pipeline.scoring.finding.detector_description import LesionMeaning
from pipeline.scoring.finding.detector_directory import DetectorSettings, save_detector
from pipeline.scoring.finding.scan_worker import FinderSetup
from pipeline.scoring.model_description import PatientHashes
from pipeline.scoring.rows import ModelIdentity

SHAPE, SPACING_MM = (512, 512, 300), (0.7, 0.7, 1.0)
BUNDLE_SPACING_MM = (0.703125, 0.703125, 1.25)
BUNDLE_WINDOW, BUNDLE_OVERLAP = (512, 512, 192), 0.25
TIMED_WINDOW = (192, 192, 96)  # the whole one takes 20 GB
CLASSES = ("nodule", "solid", "part_solid_or_ground_glass", "calcified")


def write_ct(path: Path) -> Path:
    """Two lungs in a body in air, with noise, stored as a scanner's software does."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(-1, 1, SHAPE[0]), np.linspace(-1, 1, SHAPE[1]), indexing="ij")
    plane = np.where(np.hypot(x / 0.9, y / 0.7) < 1, 40.0, -1000.0)
    for side in (-1, 1):
        plane[np.hypot((x - side * 0.4) / 0.3, y / 0.5) < 1] = -850.0
    voxels = np.empty(SHAPE, np.int16)
    for number in range(SHAPE[2]):
        voxels[..., number] = np.rint(plane + rng.normal(0, 25, plane.shape))
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    nib.save(nib.Nifti1Image(voxels, affine), path)  # type: ignore[no-untyped-call]
    return path


def write_random_detector(folder: Path, network: DetectorNetwork, grid: DetectionGrid) -> Path:
    """A detector of the given size with weights from a seed, which takes every peak for a candidate."""
    torch.manual_seed(0)
    save_detector(
        folder,
        Detector(network, classes=len(CLASSES)).eval(),
        DetectorSettings(
            name="benchmark",
            classes=CLASSES,
            network=network,
            grid=grid,
            candidates=CandidateRules(lowest_probability=0.0),
            modality="CT",
            lesions=LesionMeaning(source="none: random weights", intensities="simulated"),
        ),
        calibrators=[Calibrator("none") for _ in CLASSES],
        patients=PatientHashes.of("none", {"train": [], "validation": [], "calibration": []}),
        provenance={},
    )
    return folder


def our_side(detector: Path, classifier: Path, ct: Path, threads: int) -> dict[str, Any]:
    """A worker's process, by its own clocks."""
    command = [sys.executable, __file__, "--ours", str(detector), str(classifier), str(ct), "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def search_and_time(detector: str, classifier: str, ct: str, threads: int) -> None:
    """Do what a worker does with one scan, and print where its time went."""
    torch.set_num_threads(threads)
    loaded = cpu_seconds()
    setup = FinderSetup.on_this_machine(
        Path(detector), ModelIdentity("benchmark", "0", "0"), root=None, classifiers=[Path(classifier)], workers=1
    )
    worker = setup.build()
    start, clock = cpu_seconds(), time.perf_counter()
    read = worker.prepare(Case(case_id="ct", image="ct", path=Path(ct)))
    after_reading = cpu_seconds()
    (row,) = worker.score([read])
    end = cpu_seconds()
    if row.status not in ("scored", "flagged") or any(score.probability is None for score in row.scores):
        raise SystemExit(f"the scan was not searched and scored: {row.code} {row.reason}")
    parts = {"start": start, "imports": loaded, "read": after_reading - start, "find_and_score": end - after_reading}
    figures = {"cpu_seconds": end - start, "seconds": time.perf_counter() - clock, "candidates": len(row.candidates)}
    print(json.dumps({**figures, "memory_mb": peak_memory_megabytes(), "parts": parts}))


def cpu_seconds() -> float:
    """Of all threads of this process, in and out of the kernel."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class BundleBackbone(nn.Module):
    """ResNet-50 with a pyramid of its first two levels: MONAI's parts, without what MONAI takes from torchvision."""

    out_channels = 256

    def __init__(self) -> None:
        super().__init__()
        from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
        from monai.networks.nets.resnet import resnet50

        body = resnet50(spatial_dims=3, n_input_channels=1, conv1_t_stride=[2, 2, 1], conv1_t_size=[7, 7, 7])
        self.stem = nn.Sequential(body.conv1, body.bn1, nn.ReLU(), body.maxpool)
        self.first, self.second = body.layer1, body.layer2
        pool = LastLevelMaxPool(3)
        self.pyramid = FeaturePyramidNetwork(3, [256, 512], self.out_channels, extra_blocks=pool)

    def forward(self, images: torch.Tensor) -> Any:
        """Features by level."""
        first = self.first(self.stem(images))
        return self.pyramid(OrderedDict([("feat0", first), ("feat1", self.second(first))]))


def bundle_side(threads: int) -> dict[str, float]:
    """CPU seconds of the bundle's network over all of its windows, from one that is timed."""
    from monai.apps.detection.networks.retinanet_network import RetinaNet

    torch.set_num_threads(threads)
    network = RetinaNet(
        spatial_dims=3, num_classes=1, num_anchors=3, feature_extractor=BundleBackbone(), size_divisible=[16, 16, 8]
    ).eval()
    image = torch.rand(1, 1, *TIMED_WINDOW)
    with torch.inference_mode():
        network(image[..., :32])
        start = cpu_seconds()
        network(image)
        timed = cpu_seconds() - start
    windows = window_count()
    share = windows * math.prod(BUNDLE_WINDOW) / math.prod(TIMED_WINDOW)
    return {"cpu_seconds": timed * share, "windows": windows, "timed_seconds": timed}


def window_count() -> int:
    """Sliding windows over the CT at the bundle's spacing, as MONAI lays them."""
    sides = [round(length * mm / to) for length, mm, to in zip(SHAPE, SPACING_MM, BUNDLE_SPACING_MM, strict=True)]
    count = 1
    for side, window in zip(sides, BUNDLE_WINDOW, strict=True):
        count *= 1 + max(0, math.ceil((side - window) / int(window * (1 - BUNDLE_OVERLAP))))
    return count


def detector_settings(config: Path | None) -> tuple[DetectorNetwork, DetectionGrid]:
    """Of a configuration, or the defaults."""
    if config is None:
        return DetectorNetwork(), DetectionGrid()
    import yaml

    values = yaml.safe_load(config.read_text())
    return DetectorNetwork(**values["network"]), DetectionGrid(**values["grid"])


def main() -> None:
    """Run both sides and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--config", type=Path, help="a detector's configuration, for its network and grid")
    parser.add_argument("--ours", nargs=3, metavar=("DETECTOR", "CLASSIFIER", "CT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        search_and_time(*args.ours, args.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network, grid = detector_settings(args.config)
        detector = write_random_detector(folder / "detector", network, grid)
        classifier = write_random_model(folder / "classifier", Network(name="densenet121"), side=64)
        ours = our_side(detector, classifier, write_ct(folder / "ct.nii.gz"), args.threads)
    theirs = bundle_side(args.threads)
    print(f"{'':36}{'CPU seconds':>12}{'peak MB':>10}")
    print(f"{'search and score, one decode':36}{ours['cpu_seconds']:12.1f}{ours['memory_mb']:10.0f}")
    print(f"{'  reading':36}{ours['parts']['read']:12.1f}")
    what = f"  search, and {ours['candidates']} candidates scored"
    print(f"{what:36}{ours['parts']['find_and_score']:12.1f}")
    print(f"{'bundle network, windows alone':36}{theirs['cpu_seconds']:12.1f}{'':>10}")
    print(json.dumps({"ratio": round(theirs["cpu_seconds"] / ours["cpu_seconds"], 2), "ours": ours, "bundle": theirs}))


if __name__ == "__main__":
    main()
