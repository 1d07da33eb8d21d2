"""MONAI without the optional packages that nothing here uses: the same results, and nothing lost afterwards."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.imaging.lean_monai import OPTIONAL_PACKAGES, is_installed, without_optional_packages

# What scoring and training take from MONAI: transforms, networks, augmentation; on inputs from a seed.
COMPUTE = """
import json, sys
import numpy as np, torch
from pipeline.imaging.preprocess import _chain  # noqa: F401
from pipeline.imaging.batch_augmentation import *  # noqa: F403
from monai.transforms import NormalizeIntensityd, Resize, ScaleIntensityd, ScaleIntensityRanged
from pipeline.config.training import Network
from pipeline.models.networks import build_network
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
print(json.dumps([found, sorted({"mlflow", "pandas", "matplotlib", "ignite"} & set(sys.modules))]))
"""
LEAN = "from pipeline.imaging.lean_monai import install; install()\n"


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
    with without_optional_packages():
        assert sys.modules["nibabel"] is present
        with pytest.raises(ModuleNotFoundError, match="openslide"):
            __import__(absent)
    assert absent not in sys.modules
    assert not is_installed()  # the tests are no process of the command
