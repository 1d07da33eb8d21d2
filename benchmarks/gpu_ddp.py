"""One process of a distributed training, as torchrun starts it; the first prints a line of JSON.

torchrun --nproc-per-node 2 benchmarks/gpu_ddp.py cuda FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from gpu_rows import Setting, made_cases, made_config

from pipeline.training.fit import fit
from pipeline.training.processes import join, processes
from pipeline.training.tracker import NullTracker


def main() -> None:
    device, folder = sys.argv[1], Path(sys.argv[2])
    count = processes().count
    tiny = device == "cpu"
    setting = Setting(device=device, tiny=tiny, folder=folder, cores=1)
    side, cases = (16, 16) if tiny else (48, 256)
    config = made_config(
        setting,
        network="compact" if tiny else "resnet18",
        side=side,
        devices=count,
        max_epochs=2,
        batch_size=4 * count,
        precision="32-true" if tiny else "bf16-mixed",
    )
    join(config.training)
    begin = time.perf_counter()
    fitted = fit(made_cases(cases, side), None, config, folder=folder, tracker=NullTracker())
    seconds = time.perf_counter() - begin
    weights = torch.cat([weight.flatten().double() for weight in fitted.network.parameters()])
    sums = processes().gather(float(weights.sum()))
    if processes().rank == 0:
        print(json.dumps({"processes": count, "same_weights": len(set(sums)) == 1, "rate": 2 * cases / seconds}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
