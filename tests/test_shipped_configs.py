"""Every shipped configuration trains by the command of its own header, from an empty folder, whatever the seed."""

import csv
import functools
import os
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from shared_data import ROOT

from pipeline.cli import run

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# Seconds instead of minutes: fewer cases and one epoch. What the header names is used as it stands.
FEWER = {"demo-data": ["--cases", "150"]}
STEPS = {
    "demo_find": ["training.steps_per_epoch=20"],
    "demo_find_classifier": ["training.min_steps=0"],
}
SHORT = ["training.max_epochs=1", "evaluation.resamples=100", "evaluation.pictures=false"]


def commands(path: Path) -> list[list[str]]:
    """The command lines of a configuration's header."""
    lines = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#   malignancy ")]
    return [shlex.split(command) for line in lines for command in line.split(" && ")]


def write_medmnist(path: Path, shape: tuple[int, ...]) -> None:
    """A file as MedMNIST's, of noise with brighter positives."""
    rng = np.random.default_rng(0)
    parts = {}
    for split, count in (("train", 48), ("val", 24), ("test", 24)):
        labels = np.arange(count)[:, None] % 2
        images = rng.integers(0, 120, (count, *shape)) + 60 * labels.reshape(-1, *[1] * len(shape))
        parts |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels}
    np.savez(path, **parts)


def write_slices(folder: Path) -> Path:
    """Slices named as those of the shipped table of readings, with a manifest; the classes differ in size."""
    (folder / "images").mkdir(parents=True)
    with open(ROOT / "configs" / "lidc_slices_readings.csv", newline="") as handle:
        ids = [row["case_id"] for row in csv.DictReader(handle)][:60]
    rng = np.random.default_rng(0)
    rows = [["case_id", "patient_id", "image", "label", "mean_malignancy", "manufacturer", "intercept", "diameter_mm"]]
    for number, case_id in enumerate(ids):
        pixels = rng.normal(-850, 40, (71, 71, 1))
        half = 4 + 6 * (number % 2)
        pixels[35 - half : 35 + half, 35 - half : 35 + half] = 20
        nib.save(
            nib.Nifti1Image(pixels.astype(np.int16), np.diag([0.7, 0.7, 1, 1])), folder / f"images/{case_id}.nii.gz"
        )
        rating = 2 + 2 * (number % 2) + number % 5 / 10
        rows.append([case_id, f"P{number}", f"images/{case_id}.nii.gz", number % 2, rating, "ACME", "known", 6 + half])
    with open(folder / "manifest.csv", "w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return folder / "manifest.csv"


def fewer(words: list[str]) -> list[str]:
    """The same command for fewer cases or scans, where it does not say how many cases."""
    if "--whole-scans" in words:
        number = words.index("--whole-scans") + 1
        return [*words[:number], "44", *words[number + 1 :]]
    return [*words, *(FEWER.get(words[0], []) if "--cases" not in words else [])]


def stand_in(argument: str) -> str:
    """What a test puts where a header has a placeholder."""
    places = {"FILE.npz": "file.npz", "OUT": "imported", "OUT/manifest.csv": "imported/manifest.csv"}
    key, equals, value = argument.rpartition("=")
    return f"{key}{equals}{places.get(value, value).replace('path/to/', '')}"


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory):
    """A folder in which a ``demo-data`` command was run, once for all configurations whose header has the command."""

    @functools.cache
    def write(*words: str) -> Path:
        folder = tmp_path_factory.mktemp("demo_data")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert run(list(words)) == 0
        return folder

    return write


@pytest.fixture(scope="module", params=CONFIGS, ids=[path.stem for path in CONFIGS])
def prepared(request, tmp_path_factory, demo_data):
    """A folder in which all commands of a header but the training were run, and the training's arguments."""
    folder = tmp_path_factory.mktemp(request.param.stem)
    (folder / "configs").symlink_to(ROOT / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if request.param.stem.startswith("medmnist"):
            write_medmnist(folder / "file.npz", (28,) * int(request.param.stem[-2]))
        if request.param.stem == "lidc_slices":
            write_slices(folder / "lidc_slices")
        *before, training = commands(request.param)
        for command in before:
            words = fewer([stand_in(word) for word in command[1:]])
            if words[0] == "demo-data":
                shutil.copytree(demo_data(*words), folder, copy_function=os.link, dirs_exist_ok=True)
            else:
                assert run(words) == 0
    return folder, request.param, [stand_in(word) for word in training[1:]]


def test_every_header_ends_with_a_training():
    for path in CONFIGS:
        assert commands(path)[-1][:3] == ["malignancy", "train", f"configs/{path.name}"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_shipped_configuration_trains_by_its_headers_command(prepared, seed, monkeypatch, capfd):
    folder, path, words = prepared
    if "demo_find" in path.stem and seed:
        pytest.skip("one seed alone: whole scans take a minute to read")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    short = [] if path.stem == "smoke" else [*SHORT, *STEPS.get(path.stem, [])]
    # Of so few whole scans hardly any calibrates: 1 says that probabilities are not calibrated.
    whole_scans = "demo_find" in path.stem
    assert run([*words, f"seed={seed}", *short]) in ((0, 1) if whole_scans else (0,))
    said = capfd.readouterr()
    assert said.out.strip().splitlines()[-1].startswith("model: ")
    assert "Warning" not in said.err
