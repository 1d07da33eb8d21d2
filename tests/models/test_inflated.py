"""I3ResNet-152: the file's network, written down apart from the code under test, has the same features as ours."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from pipeline.config.training import Network
from pipeline.models.inflated import with_slices_last
from pipeline.models.networks import build_network
from pipeline.models.pretrained import load_pretrained

BLOCKS = {"layer1": 3, "layer2": 8, "layer3": 36, "layer4": 3}
STAGES = 2  # of the quick tests


def published_file(stages):
    """Random weights in a file as Merlin's: slices first, three channels, shortcuts without a bias, in bf16."""
    torch.manual_seed(7)
    width, tensors = 64, {}

    def layer(convolution, norm, outputs, inputs, *kernel):
        inside = inputs * torch.tensor(kernel).prod()
        tensors[f"{convolution}.weight"] = torch.randn(outputs, inputs, *kernel) / inside.sqrt()
        tensors[f"{norm}.weight"] = 0.5 + torch.rand(outputs)
        tensors[f"{norm}.bias"] = torch.randn(outputs) / 10
        tensors[f"{norm}.running_mean"] = torch.randn(outputs) / 10
        tensors[f"{norm}.running_var"] = 0.5 + torch.rand(outputs)

    layer("conv1", "bn1", 64, 3, 3, 7, 7)
    for number, (name, blocks) in enumerate(list(BLOCKS.items())[:stages]):
        middle = 64 * 2**number
        for block in range(blocks):
            place = f"{name}.{block}"
            layer(f"{place}.conv1", f"{place}.bn1", middle, width, 1, 1, 1)
            layer(f"{place}.conv2", f"{place}.bn2", middle, middle, 3, 3, 3)
            layer(f"{place}.conv3", f"{place}.bn3", 4 * middle, middle, 1, 1, 1)
            if block == 0:
                layer(f"{place}.downsample.0", f"{place}.downsample.1", 4 * middle, width, 1, 1, 1)
            width = 4 * middle
    return {name: tensor.bfloat16() for name, tensor in tensors.items()}


def published_features(file, volumes, stages):
    """Mean features of the published encoder: images (B, 1, R, A, S) turned to slices first, in three channels."""
    weights = {name: tensor.float() for name, tensor in file.items()}

    def normalised(images, norm):
        statistics = [weights[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(images, *statistics)

    def convolved(images, name, norm, **settings):
        return normalised(functional.conv3d(images, weights[f"{name}.weight"], **settings), norm)

    images = volumes.permute(0, 1, 4, 2, 3).expand(-1, 3, -1, -1, -1)
    images = convolved(images, "conv1", "bn1", stride=(1, 2, 2), padding=(1, 3, 3)).relu()
    images = functional.max_pool3d(images, 3, stride=2, padding=1)
    for name, blocks in list(BLOCKS.items())[:stages]:
        for block in range(blocks):
            place, stride = f"{name}.{block}", 2 if block == 0 and name != "layer1" else 1
            inner = convolved(images, f"{place}.conv1", f"{place}.bn1").relu()
            inner = convolved(inner, f"{place}.conv2", f"{place}.bn2", stride=stride, padding=1).relu()
            inner = convolved(inner, f"{place}.conv3", f"{place}.bn3")
            if block == 0:
                images = convolved(images, f"{place}.downsample.0", f"{place}.downsample.1", stride=stride)
            images = (images + inner).relu()
    return images.mean(dim=(2, 3, 4))


def loaded(file, folder, *, dimensions, **settings):
    save_file(file, folder / "encoder.safetensors")
    config = Network(
        name="i3resnet152", weights=folder / "encoder.safetensors", weights_source="made up for a test", **settings
    )
    network = build_network(config, dimensions=dimensions)
    weight_map = load_pretrained(network, config, dimensions=dimensions)
    assert not weight_map.missing
    network.fc = nn.Identity()
    return network.eval(), weight_map


@pytest.mark.parametrize("stages", [STAGES, None])
@torch.inference_mode()
def test_features_of_a_volume_are_those_of_the_published_network(stages, tmp_path):
    file = published_file(stages or 4)
    network, weight_map = loaded(file, tmp_path, dimensions=3, stages=stages)
    assert weight_map.summed == "conv1.weight"
    assert len(weight_map.loaded) == len(file)
    volumes = torch.rand(2, 1, 40, 32, 12)  # R, A, S
    expected = published_features(file, volumes, stages or 4)
    torch.testing.assert_close(network(volumes), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(network(volumes.transpose(2, 3)), expected, rtol=1e-2)


@torch.inference_mode()
def test_a_picture_is_a_volume_of_one_slice(tmp_path):
    file = published_file(STAGES)
    network, _ = loaded(file, tmp_path, dimensions=2, stages=STAGES)
    pictures = torch.rand(2, 1, 40, 32)
    expected = published_features(file, pictures[..., None], STAGES)
    torch.testing.assert_close(network(pictures), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "visual_encoder.i3_resnet."])
def test_the_axis_of_the_slices_is_found_and_put_last(prefix):
    file = {f"{prefix}{name}": tensor for name, tensor in published_file(1).items()}
    turned = with_slices_last(file, dimensions=3)
    assert turned[f"{prefix}conv1.weight"].shape == (64, 3, 7, 7, 3)
    kernel = f"{prefix}layer1.1.conv2.weight"
    assert torch.equal(turned[kernel][:, :, 1, 2, 0], file[kernel][:, :, 0, 1, 2])
    again = with_slices_last(turned, dimensions=3)  # as a model of ours has them
    assert all(torch.equal(again[name], turned[name]) for name in file)
    flat = with_slices_last(file, dimensions=2)
    assert torch.equal(flat[kernel], file[kernel][:, :, 1])
    assert with_slices_last(flat, dimensions=2).keys() == file.keys()


def test_weights_of_a_model_of_ours_are_loaded_as_they_are(tmp_path):
    torch.manual_seed(1)
    theirs = build_network(Network(name="i3resnet152", stages=1), dimensions=3).state_dict()
    network, weight_map = loaded(theirs, tmp_path, dimensions=3, stages=1)
    assert set(weight_map.skipped.values()) == {"the head of another task"}
    assert torch.equal(network.state_dict()["layer1.2.conv2.weight"], theirs["layer1.2.conv2.weight"])
