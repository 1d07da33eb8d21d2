"""Number format of a training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import torch

from pipeline.config.detection import DetectionTraining
from pipeline.config.training import Training

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
_CPU_FLAGS = ("avx512_bf16", "amx_bf16")


def precision_of(settings: Training | DetectionTraining) -> Precision:
    """As configured; ``auto`` is bf16-mixed where the device computes in bf16, else 32-true.

    A processor without bf16 emulates it, several times slower than fp32; if bf16 was asked for, a warning is printed.
    """
    gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    native = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else cpu_has_bf16()
    if settings.precision == "auto":
        return "bf16-mixed" if native else "32-true"
    if settings.precision == "bf16-mixed" and not native:
        print(
            "training.precision: this device has no bf16 and emulates it, several times slower; set 32-true or auto",
            file=sys.stderr,
        )
    return settings.precision


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies in bf16, according to Linux; False elsewhere."""
    return cpuinfo.exists() and any(flag in cpuinfo.read_text(errors="replace") for flag in _CPU_FLAGS)
