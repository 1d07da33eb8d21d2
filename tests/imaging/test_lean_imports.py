"""MONAI, nibabel and torch without what nothing here uses: the same results, and nothing lost afterwards."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.imaging.lean_imports import OPTIONAL_PACKAGES, is_installed, without_packages

# What scoring and training take from MONAI: transforms, networks, augmentation; on inputs from a seed.
COMPUTE = """
import json, sys
from functools import partial
from pathlib import Path
import numpy as np, torch
from pipeline.imaging.preprocess import _chain  # noqa: F401
from pipeline.imaging.batch_augmentation import *  # noqa: F403
from monai.transforms import NormalizeIntensityd, Resize, ScaleIntensityd, ScaleIntensityRanged
from pipeline.config.training import NETWORKS, Network
from pipeline.models.networks import build_network
from pipeline.scoring.weights_file import network_bytes
HEAVY = ("mlflow", "pandas", "matplotlib", "ignite", "pydicom", "sympy", "torch._decomp", "torch._dynamo")
image = torch.from_numpy(np.random.default_rng(0).normal(0, 400, (1, 20, 20, 20)).astype(np.float32))
found = {}
for transform in (
    NormalizeIntensityd("image"),
    ScaleIntensityd("image", minv=0.0, maxv=1.0),
    ScaleIntensityRanged("image", a_min=-1000, a_max=400, b_min=0, b_max=1, clip=True),
):
    found[type(transform).__name__] = np.asarray(transform({"image": image})["image"]).ravel()[::500].tolist()
found["Resize"] = np.asarray(Resize((9, 9, 9), mode="trilinear", anti_aliasing=True)(image)).ravel()[::90].tolist()
for name in ("compact", "densenet121", "resnet18"):
    torch.manual_seed(0)
    network = build_network(Network(name=name), dimensions=3).eval()
    with torch.inference_mode():
        found[name] = network(image[None] / 400).ravel().tolist()
for name in NETWORKS:
    for dimensions in (2, 3):
        if (name, dimensions) in {("planes", 2), ("cnn_lstm", 2)}:  # of volumes alone
            continue
        build = partial(build_network, Network(name=name), dimensions=dimensions)
        measured = network_bytes(Path("model.json"), build)
        assert measured == sum(value.numel() * value.element_size() for value in build().state_dict().values())
        found[f"{name}, bytes in {dimensions}D"] = [measured]
print(json.dumps([found, sorted(set(HEAVY) & set(sys.modules))]))
"""
LEAN = "from pipeline.imaging.lean_imports import defer_compiler, install; install(); defer_compiler()\n"


def computed(code: str):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_transforms_and_networks_compute_the_same():
    whole, _ = computed(COMPUTE)
    lean, imported = computed(LEAN + COMPUTE)
    assert imported == []  # or nothing was hidden, and nothing is shown
    assert whole.keys() == lean.keys()
    for name, values in whole.items():
        assert np.isfinite(values).all()
        assert values == lean[name], name


def test_hidden_packages_are_there_afterwards_and_monai_is_found_as_ever():
    code = """
import importlib, inspect, json
import monai
from monai.utils.module import optional_import
for name in ("mlflow", "pandas", "matplotlib.figure", "nibabel", "scipy.stats", "scipy.ndimage", "sklearn.metrics"):
    importlib.import_module(name)
import scipy
assert scipy.ndimage.label([1, 0, 1])[1] == 2
assert "load_submodules" in inspect.getsource(monai)
print(json.dumps([optional_import("pandas")[1], type(monai.__spec__.loader).__name__]))
"""
    assert computed(LEAN + code) == [True, "SourceFileLoader"]


def test_nibabel_reads_and_writes_without_pydicom_which_is_there_afterwards(tmp_path):
    code = f"""
import json, sys
import nibabel as nib, numpy as np
absent = "pydicom" not in sys.modules
image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1.0, 2.0, 3.0, 1.0]))
nib.save(image, {str(tmp_path / "a.nii.gz")!r})
again = nib.load({str(tmp_path / "a.nii.gz")!r})
import pydicom
print(json.dumps([absent, np.asarray(again.dataobj).sum().item(), type(nib.__spec__.loader).__name__]))
"""
    assert computed(LEAN + code) == [True, 276, "SourceFileLoader"]


def test_what_torch_defers_comes_when_it_is_asked_for():
    code = """
import inspect, json, sys
import torch
deferred = "torch._decomp" not in sys.modules
for module in list(sys.modules.values()):  # as inspect does when it looks for the source of something
    getattr(module, "__file__", None)
getattr(sys.modules["torch._meta_registrations"], "__wrapped__", None)
still = "torch._decomp" not in sys.modules
function = torch._meta_registrations.meta_index_Tensor
print(json.dumps([deferred, still, callable(function), "torch._decomp" in sys.modules,
    list(torch.linalg.ldl_factor(torch.empty(3, 3, device="meta")).LD.shape)]))
"""
    assert computed(LEAN + code) == [True, True, True, True, [3, 3]]


def test_a_program_that_imports_the_package_gets_monai_whole():
    code = """
import json, sys
import pipeline.cli, pipeline.scoring.scorer, pipeline.scoring.engines.workers
from monai.handlers.mlflow_handler import mlflow
print(json.dumps([mlflow.__name__, "mlflow" in sys.modules]))
"""
    assert computed(code) == ["mlflow", True]


def test_what_was_imported_before_stays(monkeypatch):
    present, absent = sys.modules["nibabel"], "openslide"
    monkeypatch.delitem(sys.modules, absent, raising=False)
    assert {"nibabel", absent} <= set(OPTIONAL_PACKAGES)
    with without_packages(OPTIONAL_PACKAGES):
        assert sys.modules["nibabel"] is present
        with pytest.raises(ModuleNotFoundError, match="openslide"):
            __import__(absent)
    assert absent not in sys.modules
    assert not is_installed()  # the tests are no process of the command
