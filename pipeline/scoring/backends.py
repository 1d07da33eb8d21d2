"""How a network is run: eager PyTorch by default, others by choice (``--backend``).

A backend other than the default may change a probability by up to 1e-3, so it is named in each row's ``model`` and a
run that was begun with one is not continued with another. ``benchmarks/backends.py`` measures them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.extras import require_extra

if TYPE_CHECKING:  # the command names a backend; only a worker needs torch, which runs it
    from torch import nn

Backend = Literal["eager", "bf16", "onnx", "openvino"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Predict = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def build_predict(network: nn.Module, backend: Backend, *, shape: tuple[int, ...], device: str = "cpu") -> Predict:
    """A function from images (B, 1, R, A[, S]) float32 to logits (B, F) float64.

    Args:
        network: in evaluation mode.
        backend: ``onnx`` and ``openvino`` run on the CPU alone.
        shape: of one input, (1, R, A[, S]).
        device: of PyTorch's backends.

    A batch that a GPU's memory does not hold is run in parts.

    Raises:
        UsageError: when the backend's package is not installed.
    """
    if backend == "onnx":
        return _onnx(network, shape)
    if backend == "openvino":
        return _openvino(network, shape)
    import torch

    from pipeline.models.cpu_kernels import to_fast_layout
    from pipeline.scoring.memory import PartsThatFit

    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:  # TF32 would move probabilities in the fourth digit
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    network = to_fast_layout(network.to(device)).eval()

    @torch.inference_mode()
    def predict(images: NDArray[np.float32]) -> NDArray[np.float64]:
        batch = torch.from_numpy(images)
        if on_gpu:
            batch = batch.pin_memory()
        batch = batch.to(device=device, non_blocking=True)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=backend == "bf16"):
            logits = network(batch)
        result: NDArray[np.float64] = logits.double().cpu().numpy()
        return result

    return PartsThatFit(predict)


def _onnx(network: nn.Module, shape: tuple[int, ...]) -> Predict:
    require_extra("onnx", "backend onnx", "onnx", "onnxruntime")
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(_exported(network, shape), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0].astype(np.float64)


def _openvino(network: nn.Module, shape: tuple[int, ...]) -> Predict:
    require_extra("openvino", "backend openvino", "onnx", "openvino")
    import openvino
    import torch

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(_exported(network, shape)), "CPU", settings)
    return lambda images: np.asarray(compiled(images)[0], np.float64)


def _exported(network: nn.Module, shape: tuple[int, ...]) -> bytes:
    """The network as ONNX, with a free batch size."""
    import torch

    buffer = io.BytesIO()
    example = torch.zeros(2, *shape)
    torch.onnx.export(
        network.cpu().eval(),
        (example,),
        buffer,  # type: ignore[arg-type]  # the exporter takes files too
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
        dynamo=False,
    )
    return buffer.getvalue()
