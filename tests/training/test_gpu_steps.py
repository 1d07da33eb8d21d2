"""What only a GPU is given, as far as a CPU can tell."""

import copy

import pytest
import torch
from test_fit import blobs, config

from pipeline.config.training import Gpu, Network, Training
from pipeline.models.cpu_kernels import to_fast_layout
from pipeline.models.networks import build_network
from pipeline.training import gpu
from pipeline.training.callbacks import TerminateOnNonFiniteLoss
from pipeline.training.fit import fit
from pipeline.training.gpu import compiled, set_tf32, training_forward
from pipeline.training.module import Classifier
from pipeline.training.tracker import NullTracker


def small(name="compact"):
    torch.manual_seed(0)
    width = {"width": 4} if name == "compact" else {}
    return to_fast_layout(build_network(Network(name=name, **width), dimensions=3)).train()


def test_a_compiled_network_gives_the_outputs_and_gradients_of_the_plain_one():
    plain, twin = small(), small()
    images = torch.rand(4, 1, 16, 16, 16)
    run = compiled(twin, "cuda_graphs", batch_size=4)
    for batch in (images, images[:2]):  # the last batch of an epoch is smaller
        expected, found = plain(batch), run(batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        expected.sum().backward()
        found.sum().backward()
    for one, other in zip(plain.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-4)


def test_compiling_is_off_unless_configured_and_never_with_accumulated_batches(monkeypatch):
    network = small()
    assert training_forward(network, Training(gpu=Gpu(compile="inductor"))) is network  # no GPU here
    monkeypatch.setattr(gpu, "uses_gpu", lambda settings: True)
    assert training_forward(network, Training()) is network
    assert training_forward(network, Training(gpu=Gpu(compile="inductor"), accumulate_batches=2)) is network
    assert training_forward(network, Training(gpu=Gpu(compile="inductor"))) is not network


def test_weights_keep_their_names_beside_a_compiled_forward():
    network = small()
    settings = Training()
    plain = Classifier(network, settings, steps=1, training_forward=network)
    module = Classifier(network, settings, steps=1, training_forward=lambda images: network(images))
    assert set(module.state_dict()) == set(plain.state_dict())
    copy.deepcopy(module)  # as a moving average of the weights does


def test_the_gpu_section_changes_nothing_on_a_cpu(tmp_path):
    settings = {"tf32": True, "deterministic": False, "channels_last": False, "compile": "inductor"}
    one = fit(blobs(16), blobs(8, seed=1), config(accelerator="cpu"), folder=tmp_path / "1", tracker=NullTracker())
    two = fit(
        blobs(16),
        blobs(8, seed=1),
        config(accelerator="cpu", gpu=settings),
        folder=tmp_path / "2",
        tracker=NullTracker(),
    )
    for first, second in zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_layout_of_weights_is_a_choice(channels_last):
    network = to_fast_layout(build_network(Network(name="resnet10"), dimensions=3), channels_last=channels_last)
    weights = next(module.weight for module in network.modules() if getattr(module, "in_channels", 1) > 1)
    assert weights.is_contiguous(memory_format=torch.channels_last_3d) is channels_last


@pytest.fixture
def tf32_as_before():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("tf32_as_before")
def test_tf32_is_one_policy_for_convolutions_and_products():
    for allowed in (True, False):
        set_tf32(allowed=allowed)
        assert torch.backends.cudnn.allow_tf32 is allowed
        assert torch.backends.cuda.matmul.allow_tf32 is allowed


def test_nothing_is_looked_at_after_a_backward_pass_whose_loss_was_looked_at_before():
    TerminateOnNonFiniteLoss(["a"]).on_after_backward(None, None)
