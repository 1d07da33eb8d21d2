"""The model directory: what is saved is what is loaded, and damage is noticed."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny_models import save_tiny

from pipeline.config.training import NETWORKS
from pipeline.errors import ModelError
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.files import sha256_bytes
from pipeline.imaging.envelope import Envelope
from pipeline.scoring.model_description import PatientHashes, model_digest
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer


def test_save_then_load_gives_the_same_bytes_of_probability(tmp_path):
    save_tiny(tmp_path / "model")
    images = np.random.default_rng(1).random((3, 1, 28, 28, 28), np.float32)
    one, two = (Scorer(load_model(tmp_path / "model")).predict(images) for _ in range(2))
    assert one[1].tobytes() == two[1].tobytes()
    assert ((one[1] > 0) & (one[1] < 1)).all()


def test_digest_covers_what_changes_a_probability_and_nothing_else(tmp_path):
    first = save_tiny(tmp_path / "1", provenance={"host": "a"}).digests.model
    assert save_tiny(tmp_path / "2", provenance={"host": "b"}).digests.model == first
    assert save_tiny(tmp_path / "3", seed=1).digests.model != first
    assert save_tiny(tmp_path / "4", envelope=Envelope(modality="CT", cases=3, limits={})).digests.model != first


def test_a_model_of_before_a_configuration_key_existed_still_loads(tmp_path):
    description = save_tiny(tmp_path / "model")
    older = {key: value for key, value in description.network.model_dump(mode="json").items() if key != "pooling"}
    digest = model_digest(description.model_dump(mode="json") | {"network": older})
    edit(tmp_path / "model", network=older)
    with pytest.raises(ModelError, match="was edited after training"):  # a key that was covered may not go away
        load_model(tmp_path / "model")
    edit(tmp_path / "model", digests={**description.digests.model_dump(), "model": digest})
    assert load_model(tmp_path / "model").description.network.pooling == "mean"


def test_a_refer_zone_is_saved_loaded_and_under_the_digest(tmp_path):
    zone = ReferZone(0.9, 0.4, 0.6, 100, 100, (0.84, 0.95), (0.84, 0.95))
    without, saved = save_tiny(tmp_path / "0"), save_tiny(tmp_path / "1", refer_zone=zone)
    assert saved.digests.model != without.digests.model
    assert load_model(tmp_path / "1").refer_zone == zone
    assert load_model(tmp_path / "0").refer_zone is None
    edit(tmp_path / "1", refer_zone={**saved.refer_zone, "benign_to": 0.3})
    with pytest.raises(ModelError, match="was edited after training"):
        load_model(tmp_path / "1")


def test_patients_are_recognised_but_not_readable(tmp_path):
    description = save_tiny(tmp_path / "model")
    assert description.patients.seen_patients(["a", "c", "z"]) == {"a", "c"}
    assert description.patients.seen_patients(["a", "c", "z"], splits=("validation",)) == {"c"}
    assert '"a"' not in (tmp_path / "model" / "model.json").read_text()


def test_nothing_in_the_directory_is_a_pickle(tmp_path):
    save_tiny(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "model.json").unlink(), "holds no model.json"),
        (lambda folder: (folder / "model.json").write_text("{"), "is not a JSON object"),
        (lambda folder: (folder / "model.json").write_text("[]"), "is not a JSON object"),
        (lambda folder: edit(folder, schema_version=7), "schema version 7, this program reads 1"),
        (lambda folder: edit(folder, colour="red"), "colour: Extra inputs are not permitted"),
        (lambda folder: edit(folder, modality="MR"), "was edited after training"),
        (lambda folder: flip_last_byte(folder / "model.safetensors"), "not those that were trained"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
        (lambda folder: edit(folder, network={"name": "compact", "width": 8, "dropout": 0.0}), "was edited after"),
        (lambda folder: edit(folder, members=[]), "members: Tuple should have at least 1 item"),
        (lambda folder: edit(folder, envelope={"alien": 1}), "envelope: expected the keys cases, limits and modality"),
        (
            lambda folder: edit(folder, envelope={"modality": "CT", "cases": None, "limits": {}}),
            "envelope: is not what",
        ),
        (lambda folder: edit(folder, refer_zone={"alien": 1}), "refer_zone: is not what this program writes"),
        (lambda folder: edit(folder, drift_reference={"probability": 7}), "drift_reference: is not what"),
        (lambda folder: edit(folder, operating_points=[{"threshold": 2}]), "operating point: expected an object"),
        (lambda folder: edit(folder, prevalence_at_calibration=float("nan")), r"holds NaN, expected finite numbers"),
        (
            lambda folder: replace_text(
                folder, '"prevalence_at_calibration": 0.5', '"prevalence_at_calibration": 1e999'
            ),
            "holds 1e999, expected finite numbers",
        ),
        (lambda folder: (folder / "model.json").write_text("[" * 200_000), "is nested too deeply"),
        (lambda folder: replace_with(folder / "model.json", os.mkfifo), "cannot be read .*a folder, pipe or device"),
        (lambda folder: replace_with(folder / "model.json", link_to_zero), "cannot be read .*a folder, pipe or device"),
        (lambda folder: replace_with(folder / "model.safetensors", os.mkfifo), "cannot be read .*pipe or device"),
        (lambda folder: replace_with(folder / "model.safetensors", link_to_zero), "cannot be read .*pipe or device"),
        (lambda folder: os.truncate(folder / "model.json", 1 << 40), r"has 1099511627776 bytes, expected at most"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1 << 40), "has 1099511627776 bytes, and the network"),
        (lambda folder: edit(folder, members=weights_at(folder, "..")), "cannot be read"),
        (lambda folder: edit(folder, members=2 * weights_at(folder, "model.safetensors")), "two have one weights file"),
    ],
)
def test_damage_is_one_clear_error(tmp_path, damage, says):
    save_tiny(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ModelError, match=says) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        ("network", {"width": 8}, "has .* bytes, and the network of model.json .*; it does not fit"),
        ("network", {"width": 10**9}, "network.width: Input should be less than or equal to 4096"),
        ("network", {"width": 4096}, "it does not fit|none can be made"),
        ("network", {"name": "densenet121", "width": None}, "it does not fit"),
        ("preprocessing", {"size": [100_000] * 3}, "size.0: Input should be less than or equal to 4096"),
        ("preprocessing", {"size": [4096] * 3}, "68,719,476,736 voxels, expected at most 134,217,728"),
    ],
)
def test_a_description_with_a_digest_that_fits_still_takes_no_memory(tmp_path, section, values, says):
    """Whoever writes a hostile description can compute its digest too."""
    description = save_tiny(tmp_path / "model").model_dump(mode="json")
    description[section] |= values
    digest = model_digest(description)
    edit(tmp_path / "model", **{section: description[section]}, digests=description["digests"] | {"model": digest})
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_in_use() + (1 << 30), before[1]))
    try:
        with pytest.raises(ModelError, match=says) as caught:
            load_model(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert "\n" not in str(caught.value)


def memory_in_use():
    with open("/proc/self/statm") as handle:
        return int(handle.read().split()[0]) * resource.getpagesize()


def test_edited_calibrator_is_noticed(tmp_path):
    save_tiny(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    value = json.loads(path.read_text())
    parameters = value["members"][0]["calibrator"]["parameters"]
    parameters["temperature"] *= 1.01
    path.write_text(json.dumps(value))
    with pytest.raises(ModelError, match="was edited after training"):
        load_model(tmp_path / "model")


def edit_second(value, change):
    if change == "calibrator":
        value["members"][0]["other_calibrators"][0]["parameters"]["temperature"] *= 1.01
    elif change == "threshold":
        value["operating_points"][1]["threshold"] *= 0.99
    else:
        value["findings"] = ["malignant", "calcified"]


@pytest.mark.parametrize("change", ["calibrator", "threshold", "name"])
def test_digest_covers_every_finding(tmp_path, change):
    save_tiny(tmp_path / "model", findings=("malignant", "spiculated"))
    load_model(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    value = json.loads(path.read_text())
    edit_second(value, change)
    path.write_text(json.dumps(value))
    with pytest.raises(ModelError, match="was edited after training"):
        load_model(tmp_path / "model")


def test_a_finding_without_calibrator_is_damage(tmp_path):
    save_tiny(tmp_path / "model", findings=("malignant", "spiculated"))
    edit(tmp_path / "model", findings=["malignant", "spiculated", "calcified"])
    with pytest.raises(ModelError, match=r"findings: .*3 findings have \[2\] calibrators, weights or thresholds"):
        load_model(tmp_path / "model")


def test_existing_directory_is_never_overwritten(tmp_path):
    save_tiny(tmp_path / "model")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        save_tiny(tmp_path / "model")


def edit(folder, **values):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_models_with_hashes_of_ids_as_they_were_spelt_still_know_their_patients():
    spelt = sha256_bytes(b"salt\0P-07")[:16]
    hashes = PatientHashes(salt="salt", train=(spelt,), validation=(), calibration=())
    assert hashes.seen_patients(["P-07", "p-07"]) == {"P-07"}


def replace_text(folder, old, new):
    path = folder / "model.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def replace_with(path, make):
    path.unlink()
    make(path)


def link_to_zero(path):
    path.symlink_to("/dev/zero")


def weights_at(folder, name):
    (member,) = json.loads((folder / "model.json").read_text())["members"]
    return [member | {"weights": name}]


def test_asking_for_a_networks_size_draws_nothing_and_imports_no_algebra():
    """Weights drawn without memory made torch import SymPy and its compiler, most of what loading a model took."""
    code = """
import json, sys
from types import SimpleNamespace
from pipeline.config.training import NETWORKS, Network
from pipeline.scoring.model_directory import _network
from pipeline.scoring.weights_file import network_bytes
from pipeline.scoring.weights_file import _Undrawn
import torch
before = set(sys.modules)
found, state = {}, torch.get_rng_state()
for name in NETWORKS:
    model = SimpleNamespace(network=Network(name=name), dimensions=3, findings=("malignant", "spiculated"))
    with _Undrawn():
        expected = sum(value.numel() * value.element_size() for value in _network(model).state_dict().values())
    found[name] = [network_bytes(None, lambda: _network(model)), expected]
assert torch.equal(torch.get_rng_state(), state)
print(json.dumps([found, sorted({"sympy", "torch._dynamo", "torch._decomp"} & (set(sys.modules) - before))]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sizes, imported = json.loads(done.stdout)
    assert len(sizes) == len(NETWORKS)
    for name, (size, expected) in sizes.items():
        assert size == expected > 0, name
    assert imported == []


def test_loading_a_model_draws_no_random_numbers(tmp_path):
    save_tiny(tmp_path / "model")
    before = torch.get_rng_state()
    first = load_model(tmp_path / "model").members[0].network.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    second = load_model(tmp_path / "model").members[0].network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(first)
        assert all(torch.equal(file.get_tensor(name), first[name]) for name in first)
