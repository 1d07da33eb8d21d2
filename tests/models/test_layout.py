"""The fast layout: the same weights under the same names, and the same values and gradients but for rounding."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from pipeline.config.training import Network
from pipeline.models.cpu_kernels import to_fast_layout
from pipeline.models.networks import build_network


@pytest.mark.parametrize(
    ("dimensions", "kernel", "stride", "padding"),
    [(2, 5, 2, 2), (3, 7, 2, 3), (3, 7, 1, 3), (3, (3, 5, 4), (1, 2, 3), (1, 0, 2))],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_convolution_is_the_convolution(dimensions, kernel, stride, padding, bias):
    torch.manual_seed(0)
    make = torch.nn.Conv2d if dimensions == 2 else torch.nn.Conv3d
    plain = make(1, 8, kernel, stride=stride, padding=padding, bias=bias)
    folded = to_fast_layout(copy.deepcopy(plain))
    assert type(folded) is not make
    images = torch.rand(2, 1, *(13, 12, 11)[:dimensions]).bfloat16().float()  # exact in bf16, so only sums differ
    for each in (plain, folded):
        for weight in each.parameters():
            weight.data = weight.data.bfloat16().float()
    outputs = []
    for each in (plain, folded):
        with torch.autocast("cpu", torch.bfloat16):
            found = each(images)
        found.float().square().mean().backward()
        outputs.append(found.float())
    assert outputs[0].shape == outputs[1].shape
    torch.testing.assert_close(outputs[1], outputs[0], atol=0.01, rtol=0.01)
    torch.testing.assert_close(folded.weight.grad, plain.weight.grad, atol=0.01, rtol=0.02)
    torch.testing.assert_close(folded(images), plain(images), atol=1e-6, rtol=1e-5)  # without autocast it is not folded


@pytest.mark.parametrize("make", [torch.nn.MaxPool3d, torch.nn.AvgPool3d])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_pooling_keeps_number_format_and_order_and_its_values(make, order, dtype):
    torch.manual_seed(0)
    plain = make(2, stride=2)
    fast = to_fast_layout(copy.deepcopy(plain))
    outputs, gradients = [], []
    for each in (plain, fast):
        features = torch.rand(2, 8, 6, 8, 10, generator=torch.Generator().manual_seed(0)).to(dtype, memory_format=order)
        features.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = each(features)
        found.float().square().mean().backward()
        outputs.append(found)
        gradients.append(features.grad)
    assert type(fast) is not make
    assert outputs[1].dtype == dtype
    assert outputs[1].is_contiguous(memory_format=order)
    torch.testing.assert_close(outputs[1], outputs[0].to(dtype), atol=0, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=0.01)


@pytest.mark.parametrize(("name", "trunk"), [("densenet121", "denseblock"), ("resnet18", "layer")])
def test_no_block_computes_in_fp32_where_bf16_is_asked_for(name, trunk):
    network = to_fast_layout(build_network(Network(name=name), dimensions=3)).eval()
    formats = {}
    for key, module in network.named_modules():
        if trunk in key and isinstance(module, torch.nn.BatchNorm3d):
            module.register_forward_hook(lambda _, given, __, key=key: formats.update({key: given[0].dtype}))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(1, 1, 48, 48, 48))
    assert len(formats) > 10
    assert set(formats.values()) == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "dimensions"), [("compact", 2), ("compact", 3), ("planes", 3), ("resnet18", 3), ("densenet121", 3)]
)
def test_weights_keep_names_shapes_and_values(name, dimensions):
    torch.manual_seed(0)
    network = build_network(Network(name=name), dimensions=dimensions)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    after = to_fast_layout(network).state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["compact", "resnet18", "densenet121"])
def test_a_network_in_bf16_says_what_it_says_without_the_layout(name):
    torch.manual_seed(0)
    network = build_network(Network(name=name), dimensions=3).eval()
    images = torch.rand(4, 1, 32, 32, 32)
    with torch.inference_mode():
        exact = network(images)
        folded = to_fast_layout(copy.deepcopy(network))
        torch.testing.assert_close(folded(images), exact, atol=1e-5, rtol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            plain, fast = network(images), folded(images)
    assert (fast - exact).abs().max() < 2 * (plain - exact).abs().max() + 0.01


@pytest.mark.parametrize("name", ["compact", "resnet18", "planes"])
def test_one_image_is_computed_as_among_others_and_without_the_plain_loop(name):
    torch.manual_seed(0)
    network = build_network(Network(name=name), dimensions=3).eval()
    fast = to_fast_layout(copy.deepcopy(network))
    images = torch.rand(3, 1, 24, 24, 24)
    with torch.inference_mode():
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            alone = fast(images[:1])
        torch.testing.assert_close(alone, network(images)[:1], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(alone, network(images[:1]), atol=1e-6, rtol=1e-5)
    counts = {event.key: event.count for event in profile.key_averages()}
    wide = [each for each in fast.modules() if isinstance(each, torch.nn.Conv3d) and max(each.kernel_size) > 1]
    assert counts["aten::mkldnn_convolution"] >= len(wide)  # torch would leave most of them to its plain loop


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2, "padding": 1},
        {"dilation": 2, "padding": 2, "bias": False},
        {"groups": 4, "padding": (0, 1, 2)},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "circular"},
    ],
)
def test_any_convolution_of_one_image_has_its_values_and_gradients(settings):
    torch.manual_seed(0)
    plain = torch.nn.Conv3d(8, 12, 3, **settings)
    fast = to_fast_layout(nn.Sequential(copy.deepcopy(plain)))
    image = torch.rand(1, 8, 9, 8, 7)
    with torch.no_grad():
        torch.testing.assert_close(fast(image), plain(image), atol=1e-6, rtol=1e-5)
    for each in (plain, fast):
        each(image).square().mean().backward()
    torch.testing.assert_close(fast[0].weight.grad, plain.weight.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["planes", "compact"])
@pytest.mark.parametrize("width", [4, 8, 12])
def test_narrow_networks_train_with_any_batch_without_overrunning_memory(name, width):
    """In a process of its own: what oneDNN writes beyond the weights' gradient ends the process."""
    code = (
        "import torch; from pipeline.config.training import Network\n"
        "from pipeline.models.cpu_kernels import to_fast_layout; from pipeline.models.networks import build_network\n"
        f"dimensions = {3 if name == 'planes' else 2}\n"
        f"network = build_network(Network(name='{name}', width={width}), dimensions=dimensions, outputs=1)\n"
        "to_fast_layout(network).train()\n"
        "for batch in (3, 5, 2, 7):\n"
        "    network(torch.rand(batch, 1, *[32] * dimensions)).sum().backward()\n"
        "    [torch.rand(1000) for _ in range(200)]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_pointwise_convolution_gives_the_values_of_the_strided_one(groups):
    strided = nn.Conv2d(8, 16, 1, stride=2, groups=groups)
    images = torch.rand(3, 8, 15, 16)
    expected = strided(images)
    (pointwise,) = to_fast_layout(nn.Sequential(strided))
    assert type(pointwise) is not nn.Conv2d
    torch.testing.assert_close(pointwise(images), expected)


@pytest.mark.parametrize(("dimensions", "stride", "side"), [(3, 1, 2), (3, 2, 1), (2, 2, 1)])
def test_convolutions_of_small_inputs_learn_the_right_weights_in_bf16(dimensions, stride, side):
    """Of memory that holds NaN, against gradients of float64: torch's own reads and writes beyond its arrays."""
    code = (
        "import itertools, torch; from torch import nn\n"
        "from pipeline.models.cpu_kernels import to_fast_layout\n"
        f"dimensions, stride, side = {dimensions}, {stride}, {side}\n"
        "make = nn.Conv2d if dimensions == 2 else nn.Conv3d\n"
        "torch.manual_seed(0)\n"
        "for sides in set(itertools.permutations((side, 4, 5)[:dimensions])) | {(side,) * dimensions}:\n"
        "    exact = make(16, 16, 3, stride=stride, padding=1, bias=False).double()\n"
        "    fast = to_fast_layout(nn.Sequential(make(16, 16, 3, stride=stride, padding=1, bias=False)))\n"
        "    fast[0].load_state_dict(exact.state_dict())\n"
        "    images = torch.randn(5, 16, *sides)\n"
        "    junk = [torch.full((count,), float('nan')) for count in (1_000, 10_000, 100_000, 16 * 16 * 27)]\n"
        "    del junk\n"
        "    with torch.autocast('cpu', torch.bfloat16):\n"
        "        found = fast(images)\n"
        "    assert found.dtype == torch.bfloat16\n"
        "    gradient = torch.randn_like(found)\n"
        "    found.backward(gradient)\n"
        "    exact(images.double()).backward(gradient.double())\n"
        "    error = (fast[0].weight.grad - exact.weight.grad).abs().max() / exact.weight.grad.abs().max()\n"
        "    assert error < 0.02, (sides, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["compact", "planes", "cnn_lstm", "resnet18", "densenet121"])
def test_the_smallest_input_that_a_configuration_may_ask_for_trains(name):
    torch.manual_seed(0)
    network = to_fast_layout(build_network(Network(name=name), dimensions=3)).train()
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(4, 1, 8, 8, 8)).float().sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())
