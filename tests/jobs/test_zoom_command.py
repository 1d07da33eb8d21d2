"""``preprocessing.zoom``: lesions are shown at a scale that follows their known size, wherever a case is read."""

import numpy as np
import pandas as pd
import pytest
from cohorts import run_folder, tiny_config, train_tiny

from pipeline.cases.manifest import read_manifest
from pipeline.cases.prepare import prepare_case
from pipeline.cli import run
from pipeline.config.inputs import Preprocessing, Zoom
from pipeline.evaluation.predictions import read_predictions
from pipeline.scoring.model_description import read_description

ZOOM = "{column: diameter_mm, reference_mm: 10.0, power: 0.5, smallest: 0.8, largest: 1.5}"
SETTINGS = ("data.covariates={diameter_mm: log}", f"preprocessing.zoom={ZOOM}")


@pytest.fixture(scope="module")
def manifest(cohort_manifest):
    """The cohort with diameters above 0."""
    table = pd.read_csv(cohort_manifest, dtype=str, keep_default_na=False)
    path = cohort_manifest.with_name("sized.csv")
    table.assign(diameter_mm=table["diameter_mm"].astype(float).abs().add(4).astype(str)).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, manifest):
    folder = tmp_path_factory.mktemp("zoom")
    return train_tiny(folder, tiny_config(manifest, folder), *SETTINGS)


@pytest.fixture
def inside(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    return run_folder(workspace)


@pytest.mark.parametrize(
    ("size_mm", "power", "factor"), [(10, 1, 1), (5, 1, 2), (5, 0.5, 2**0.5), (1, 1, 3), (40, 1, 0.5), (20, 1, 0.5)]
)
def test_factor_is_the_power_of_the_ratio_within_its_limits(size_mm, power, factor):
    assert Zoom(column="d", reference_mm=10.0, power=power).factor(size_mm) == pytest.approx(factor)


def test_input_is_the_one_of_the_divided_spacing(manifest):
    case = read_manifest(manifest).cases[0]
    size_mm = float(case.extra["diameter_mm"])
    plain = Preprocessing(region="lesion", size=(16, 16, 16), spacing_mm=(1.0, 1.0, 1.0))
    zoomed = plain.model_copy(update={"zoom": Zoom(column="diameter_mm", reference_mm=2 * size_mm)})
    halved = plain.model_copy(update={"spacing_mm": (0.5, 0.5, 0.5)})
    read = {
        name: prepare_case(case, config, modality="CT", root=None, covariates={"diameter_mm": "log"})
        for name, config in (("plain", plain), ("zoomed", zoomed), ("halved", halved))
    }
    np.testing.assert_array_equal(read["zoomed"].voxels, read["halved"].voxels)
    assert not np.array_equal(read["zoomed"].voxels, read["plain"].voxels)


def test_models_without_zoom_are_described_as_before():
    plain = Preprocessing(region="image", size=(16, 16), dimensions=2, spacing_mm=(1.0, 1.0))
    assert "zoom" not in plain.model_dump(mode="json")


def test_training_command_and_mlflow_model_agree(inside, manifest, tmp_path):
    import mlflow

    assert run(["score", str(inside / "model"), str(manifest), "--out", str(tmp_path / "out")]) in (0, 1)
    rows = pd.read_parquet(tmp_path / "out" / "scores.parquet").set_index("case_id")
    predictions = read_predictions(inside / "predictions.parquet").frame.set_index("case_id")
    differences = np.abs(predictions["logit"] - rows.loc[predictions.index, "logit"]).dropna()
    assert len(differences) > 5  # some cases lie outside the envelope of so few
    assert differences.max() < 1e-5
    mlflow.set_tracking_uri(f"sqlite:///{inside.parents[1] / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"root": str(manifest.parent)})
    answered = model.predict(pd.read_csv(manifest, dtype={"case_id": str})).set_index("case_id")
    probability = answered["probability"].astype(float)  # None where there is none
    np.testing.assert_allclose(probability, rows.loc[answered.index, "probability"], atol=1e-6)
    assert "1.25 mm for diameter_mm 10, finer for smaller" in read_description(inside / "model").input_contract


def test_size_moves_the_logit_beyond_its_covariate(inside, manifest, tmp_path):
    column = read_description(inside / "model").members[0].covariates["diameter_mm"]
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    logits = []
    for name, size_mm in (("reference", 10.0), ("small", 8.0)):
        sized = manifest.with_name(f"zoom-{name}.csv")
        table.assign(diameter_mm=str(size_mm)).to_csv(sized, index=False)
        assert run(["score", str(inside / "model"), str(sized), "--out", str(tmp_path / name)]) in (0, 1)
        logits.append(pd.read_parquet(tmp_path / name / "scores.parquet").set_index("case_id")["logit"])
    by_covariate = column.weights[0] * np.log(8.0 / 10.0) / column.deviation
    moved = np.abs(logits[1] - logits[0] - by_covariate).dropna()
    assert len(moved) > 20
    assert moved.max() > 1e-3


def test_zoom_by_a_column_that_is_no_covariate_is_refused(tmp_path, manifest, monkeypatch, capsys):
    import yaml

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(manifest, tmp_path)))
    assert run(["train", "tiny.yaml", f"preprocessing.zoom={ZOOM}"]) == 2
    assert "add it as data.covariates={diameter_mm: log}" in capsys.readouterr().err
