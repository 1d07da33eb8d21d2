"""What a GPU is put through: kill -9, a full memory, a second process, several GPUs.

This process never touches CUDA itself: its children, which are forked, could not use it then.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_rows import Row, Setting, made_cases, made_config
from random_model import write_random_model

import pipeline.training.fit as fit_module
from pipeline.config.training import Network
from pipeline.errors import UnfinishedError
from pipeline.scoring.memory import PartsThatFit
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer
from pipeline.training.checkpoints import LAST
from pipeline.training.tracker import NullTracker

_FORK = multiprocessing.get_context("fork")
_CHILD_SECONDS = 60.0


def resume(setting: Setting) -> list[Row]:
    """Two whole trainings, and one that is killed in its second epoch and resumed."""
    folder = setting.folder / "resume"
    folder.mkdir()
    whole, twin = (in_child(train, setting, folder / name) for name in ("whole", "twin"))
    killed = folder / "killed"
    killed.mkdir()
    process = _FORK.Process(target=train, args=(setting, killed, "hang"))
    process.start()
    end = time.monotonic() + _CHILD_SECONDS
    while not (killed / "in-second-epoch").exists():
        if time.monotonic() > end or not process.is_alive():
            process.kill()
            raise RuntimeError("the training that was to be killed never reached its second epoch")
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    resumed = in_child(train, setting, killed)
    again, after = gap(whole, twin), gap(whole, resumed)
    repeats = "bit-identical" if again == 0 else f"weights differ by {again:.1e} (torch has no repeatable form of all)"
    same = after <= 10 * again + (0 if again == 0 else 1e-6)
    went_on = resumed["epochs_here"] < whole["epochs_here"]
    said = "bit-identical" if after == 0 else f"differ by {after:.1e}"
    return [
        Row("the same training twice", repeats, figures={"gap": again}),
        Row(
            "kill -9 and resume",
            f"weights {said} from the uninterrupted ones; {resumed['epochs_here']} epochs were left",
            "as near as a second run",
            same and went_on,
            {"gap": after},
        ),
    ]


def train(setting: Setting, folder: Path, mode: str = "") -> dict[str, Any]:
    """A training whose weights stay in ``folder``; with ``hang`` it waits in its second epoch to be killed."""
    seen: list[int] = []

    class Tracker:
        def metrics(self, values: dict[str, float], *, step: int) -> None:
            seen.append(step)
            if mode == "hang" and step == 2:
                (folder / "in-second-epoch").touch()
                time.sleep(_CHILD_SECONDS)

    side, cases = (16, 16) if setting.tiny else (48, 64)
    name = "compact" if setting.tiny else "resnet18"
    precision = "32-true" if setting.tiny else "bf16-mixed"
    config = made_config(setting, network=name, side=side, max_epochs=3, batch_size=8, precision=precision)
    begin = time.perf_counter()
    fitted = fit_module.fit(made_cases(cases, side), None, config, folder=folder, tracker=Tracker())
    seconds = time.perf_counter() - begin
    weights = torch.cat([weight.flatten().double() for weight in fitted.network.state_dict().values()])
    return {"weights": weights.numpy(), "epochs_here": len(seen), "rate": len(seen) * cases / seconds}


def gap(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(np.abs(one["weights"] - other["weights"]).max())


def memory(setting: Setting) -> list[Row]:
    """A batch that does not fit, in training and in scoring."""
    return [*in_child(training_memory, setting), *in_child(scoring_memory, setting)]


def training_memory(setting: Setting) -> list[Row]:
    """The error names a batch that fits; it does, and the checkpoint before it stands."""
    folder = setting.folder / "memory"
    side, batch = (16, 16) if setting.tiny else (64, 256)
    cases = made_cases(2 * batch, side)
    name = "compact" if setting.tiny else "resnet18"
    small = made_config(setting, network=name, side=side, max_epochs=1, batch_size=4)
    fit_module.fit(cases, None, small, folder=folder, tracker=NullTracker())
    before = (folder / LAST).read_bytes()
    large = made_config(setting, network=name, side=side, max_epochs=2, batch_size=batch)
    limit_training_memory(setting, cases=batch // 3)
    try:
        fit_module.fit(cases, None, large, folder=folder, tracker=NullTracker())
    except UnfinishedError as error:
        said = str(error)
    else:
        return [Row("training: batch too large", f"{batch} cases fitted after all", "one line", passed=False)]
    kept = (folder / LAST).read_bytes() == before
    named = [word for word in said.split() if word.startswith("training.batch_size=")]
    if not named or "\n" in said:
        return [Row("training: batch too large", said.splitlines()[0], "one line with a batch that fits", passed=False)]
    fits = int(named[0].partition("=")[2])
    again = made_config(setting, network=name, side=side, max_epochs=1, batch_size=fits)
    fit_module.fit(cases, None, again, folder=folder / "again", tracker=NullTracker())
    result = f"one line: {fits} cases fit, and train; checkpoint {'kept' if kept else 'LOST'}"
    return [Row(f"training: {batch} cases are too many", result, "nothing lost", kept, {"fits": fits})]


def limit_training_memory(setting: Setting, *, cases: int) -> None:
    """A twentieth of a GPU's memory; on a CPU a network that fails as one with too little would."""
    if setting.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.05)
        return
    build = fit_module.build_network

    def building(*args: Any, **kwargs: Any) -> torch.nn.Module:
        network = build(*args, **kwargs)
        network.register_forward_pre_hook(fails_above(cases))
        return network

    fit_module.build_network = building


def fails_above(cases: int) -> Callable[[torch.nn.Module, tuple[torch.Tensor]], None]:
    def hook(_: torch.nn.Module, images: tuple[torch.Tensor]) -> None:
        if len(images[0]) > cases:
            raise torch.OutOfMemoryError(f"{len(images[0])} cases are too many for this test")

    return hook


def scoring_memory(setting: Setting) -> list[Row]:
    """Probabilities of a batch that goes through in parts, beside those of one that fits."""
    side, batch = (32, 8) if setting.tiny else (64, 512)
    network = Network(name="resnet10" if setting.tiny else "densenet121")
    model = write_random_model(setting.folder / "memory-model", network, side=side)
    scorer = Scorer(load_model(model), device=setting.scoring_device)
    images = np.random.default_rng(0).random((batch, 1, side, side, side), np.float32)
    expected = np.concatenate([scorer.predict(part)[1] for part in np.split(images, batch // 2)])
    predict = scorer._predict[0]
    assert isinstance(predict, PartsThatFit)
    if setting.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.05)
    else:
        scorer._members[0].network.register_forward_pre_hook(fails_above(batch // 3))
    found = scorer.predict(images)[1]
    most = float(np.abs(found - expected).max())
    parts = predict._most
    result = f"{parts} at a time; probabilities differ by {most:.1e}" if parts else "the whole batch fitted after all"
    return [Row(f"scoring: {batch} inputs are too many", result, "<= 1e-05", parts is not None and most <= 1e-5)]


def two_processes(setting: Setting) -> list[Row]:
    """Two trainings on one device at the same time, beside one."""
    folder = setting.folder / "two"
    one = in_child(train, setting, folder / "one")
    pool = [_FORK.Pipe(duplex=False) for _ in range(2)]
    running = [start(there, train, setting, folder / str(number)) for number, (_, there) in enumerate(pool)]
    both = [answer(process, here) for process, (here, _) in zip(running, pool, strict=True)]
    rate = sum(result["rate"] for result in both) / one["rate"]
    most = max(gap(one, result) for result in both)
    result = f"both finish, together at {rate:.2f} times the rate of one; weights within {most:.1e} of it"
    return [Row("two processes on one device", result, "both finish", passed=True, figures={"rate": rate, "gap": most})]


def distributed(setting: Setting) -> list[Row]:
    """One training over all devices; on a CPU over two processes."""
    count = in_child(torch.cuda.device_count) if setting.on_gpu else 2
    if count < 2:
        return [Row("several devices", f"skipped: this machine shows {count}")]
    folder = setting.folder / "ddp"
    script = Path(__file__).with_name("gpu_ddp.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*torchrun, str(script), setting.device, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"torchrun: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    result = f"{found['processes']} processes, {found['rate']:.1f} cases per second; weights "
    result += "the same in all" if found["same_weights"] else "DIFFER between them"
    return [Row("several devices", result, "the same weights", bool(found["same_weights"]), found)]


def in_child(work: Callable[..., Any], *args: Any) -> Any:
    """What a function returns in a process of its own."""
    here, there = _FORK.Pipe(duplex=False)
    return answer(start(there, work, *args), here)


def start(there: Any, work: Callable[..., Any], *args: Any) -> Any:
    process = _FORK.Process(target=_send, args=(there, work, args))
    process.start()
    there.close()
    return process


def _send(there: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    there.send(work(*args))


def answer(process: Any, here: Any) -> Any:
    """Wait for a child's result.

    Raises:
        RuntimeError: when it ends without one, or takes too long.
    """
    if not here.poll(_CHILD_SECONDS):
        process.kill()
        raise RuntimeError(f"a child took more than {_CHILD_SECONDS:g} s")
    try:
        result = here.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"a child ended with exit code {process.exitcode}") from None
    process.join()
    return result
