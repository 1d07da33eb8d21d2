"""Backends: the default is eager to 1e-6, the others are near enough to be a choice."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from pipeline.config.training import Network
from pipeline.evaluation.calibration.calibrator import sigmoid
from pipeline.models.networks import build_network
from pipeline.scoring.backends import build_predict

LIMITS = {"eager": 1e-6, "onnx": 1e-5, "openvino": 1e-5, "bf16": 1e-2}
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


@pytest.mark.parametrize("backend", LIMITS)
@pytest.mark.parametrize(
    ("config", "dimensions"),
    [
        (Network(), 2),
        (Network(width=8, average_flips=True), 3),
        (Network(name="planes", width=8), 3),
        (Network(name="cnn_lstm", width=4, average_flips=True), 3),
        (Network(width=8, head="softmax", activation="gelu"), 2),
    ],
    ids=["compact 2D", "compact 3D, flips", "planes", "slices through an LSTM", "softmax, gelu"],
)
def test_a_backend_gives_the_probabilities_of_plain_pytorch_for_any_batch(backend, config, dimensions):
    pytest.importorskip(PACKAGES.get(backend, "torch"), reason=f"the extra [{backend}] is not installed")
    torch.manual_seed(0)
    network = build_network(config, dimensions=dimensions, outputs=2).eval()
    images = np.random.default_rng(0).random((5, 1, *[28] * dimensions), np.float32)
    with torch.inference_mode():
        expected = sigmoid(network(torch.from_numpy(images)).numpy())
    predict = build_predict(copy.deepcopy(network), backend, shape=(1, *[28] * dimensions))
    for part in (images, images[:1]):
        logits = predict(part)
        assert (logits.shape, logits.dtype) == ((len(part), 2), np.float64)
        np.testing.assert_allclose(sigmoid(logits), expected[: len(part)], atol=LIMITS[backend])
