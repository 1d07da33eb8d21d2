"""The same numbers on a GPU as on a CPU: logits of every network, probabilities of a manifest, golden scans."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from gpu_rows import Row, Setting
from gpu_scoring import write_scans
from random_model import write_random_model
from torch import nn

from pipeline.cases.inputs import read_inputs
from pipeline.config.training import NETWORKS, Network
from pipeline.models.cpu_kernels import to_fast_layout
from pipeline.models.networks import build_network
from pipeline.scoring.engines.local import score_in_processes
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.golden import golden_drift
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer
from pipeline.training.gpu import set_tf32

_LOGIT_LIMIT, _PROBABILITY_LIMIT, _GOLDEN_LIMIT = 1e-4, 1e-5, 1e-4


def networks(setting: Setting) -> list[Row]:
    """Logits of every network, for the same images."""
    rows = []
    side = 32 if setting.tiny else 48
    for name in NETWORKS:
        torch.manual_seed(0)
        network = to_fast_layout(build_network(Network(name=name), dimensions=3)).eval()
        images = torch.rand(2, 1, side, side, side)
        gaps = logit_gaps(setting, network, images)
        said = ", ".join(f"{kind} {gap:.1e}" for kind, gap in gaps.items())
        passed = gaps["fp32"] <= _LOGIT_LIMIT
        rows.append(Row(f"logits of {name}", said, f"fp32 <= {_LOGIT_LIMIT:g}", passed, gaps))
    return rows


@torch.inference_mode()
def logit_gaps(setting: Setting, network: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """The largest difference to the CPU's fp32 logits, in each number format."""
    expected = network(images)
    there, moved = copy.deepcopy(network).to(setting.device), images.to(setting.device)
    gaps = {}
    for kind, lower in {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        if kind in ("tf32", "fp16") and not setting.on_gpu:
            continue
        set_tf32(allowed=kind == "tf32")
        with torch.autocast(setting.device, dtype=lower, enabled=lower is not None):
            logits = there(moved)
        gaps[kind] = float((logits.float().cpu() - expected).abs().max())
    set_tf32(allowed=False)
    return gaps


def scoring(setting: Setting) -> list[Row]:
    """Probabilities of one manifest, read by the same workers; then the golden scans on the device."""
    folder = setting.folder / "parity"
    network = Network(name="resnet10") if setting.tiny else Network(name="densenet121")
    model = write_random_model(folder / "model", network, side=32 if setting.tiny else 64)
    manifest = write_scans(folder / "scans", cases=3 if setting.tiny else 8, shape=(64, 64, 48))
    inputs = read_inputs(manifest)
    found = {device: probabilities(model, manifest, device, setting) for device in ("cpu", setting.scoring_device)}
    gap = max(abs(one - other) for one, other in zip(*found.values(), strict=True))
    drift = golden_drift(Scorer(load_model(model), root=inputs.root, device=setting.scoring_device), [model])
    return [
        Row(
            "probabilities of a manifest",
            f"{gap:.1e}",
            f"<= {_PROBABILITY_LIMIT:g}",
            gap <= _PROBABILITY_LIMIT,
            {"gap": gap},
        ),
        Row("golden scans on the device", f"{drift:.1e}", f"<= {_GOLDEN_LIMIT:g}", drift <= _GOLDEN_LIMIT),
    ]


def probabilities(model: Path, manifest: Path, device: str, setting: Setting) -> list[float]:
    inputs = read_inputs(manifest)
    setup = ScorerSetup((model,), root=inputs.root, device=device)
    identity = Scorer(load_model(model), device="cpu").identity
    workers = min(setting.cores, 2)
    rows = list(score_in_processes(setup, inputs.cases(), identity, batch_size=2, workers=workers))
    refused = [f"{row.case_id}: {row.code} {row.reason}" for row in rows if row.probability is None]
    if refused:
        raise RuntimeError(f"not scored: {'; '.join(refused)}")
    return [row.probability for row in rows if row.probability is not None]
