"""A fixed demonstration, scored by fixed networks, gets the rows that are stored here: a refactoring changes none.

Nothing is trained, so that the rows hang on reading, preprocessing, networks, calibration, envelope, decisions and
sink alone. A change that is meant to alter them renews them::

    MALIGNANCY_RENEW_EXPECTED=1 pytest tests/scoring/test_expected_scores.py

and is committed with the new rows and the reason.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.cli import run
from pipeline.config.inputs import Intensity, Preprocessing, Zoom
from pipeline.config.training import Network
from pipeline.datasets.demo import write_demo_data
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.covariates import Covariate, CovariateTerm
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.imaging.envelope import Envelope, Limit
from pipeline.models.networks import build_network
from pipeline.scoring.model_description import LabelMeaning, ModelFacts, PatientHashes
from pipeline.scoring.model_directory import Member, save_model

STORED = Path(__file__).parent / "expected_scores"
RENEW = "MALIGNANCY_RENEW_EXPECTED"
# Of a run, and of the version of the library that compresses the scans.
NOT_STORED = ["scored_at", "seconds", "image_sha256"]
PROBABILITY_TOLERANCE, LOGIT_TOLERANCE = 1e-6, 1e-5  # last bits differ between processors
WINDOW = Intensity(scaling="window", lower=-1000.0, upper=400.0)


@dataclass(frozen=True)
class FixedModel:
    """A model without anything fitted: every number in it is stated here or drawn from a seed by NumPy."""

    network: Network
    preprocessing: Preprocessing
    threshold: float
    calibrators: tuple[Calibrator, ...]  # one a member
    covariates: CovariateTerm = field(default_factory=CovariateTerm)
    envelope: Envelope | None = None
    refer_zone: ReferZone | None = None

    def save(self, folder: Path, name: str) -> Path:
        """Write the model directory."""
        save_model(
            folder,
            [Member(self._network(seed), (fitted,), self.covariates) for seed, fitted in enumerate(self.calibrators)],
            ModelFacts(
                name=name,
                network=self.network,
                preprocessing=self.preprocessing,
                modality="CT",
                operating_points=(OperatingPoint(self.threshold, "youden", None, None, 40, 40, 0.8, 0.8).to_json(),),
                label=LabelMeaning(source="drawn for a test", intensities="simulated"),
                envelope=self.envelope and self.envelope.to_json(),
                prevalence_at_calibration=0.5,
                patients=PatientHashes.of("salt", {"train": ["a"], "validation": ["b"], "calibration": ["c"]}),
                provenance={},
                refer_zone=self.refer_zone and self.refer_zone.to_json(),
            ),
        )
        return folder

    def _network(self, seed: int) -> torch.nn.Module:
        """With weights that do not hang on how a version of torch draws them."""
        rng = np.random.default_rng(seed)
        network = build_network(self.network, dimensions=self.preprocessing.dimensions).eval()
        for name, values in network.state_dict().items():
            if values.ndim > 1:
                high = (6 / values[0].numel()) ** 0.5  # signals neither vanish nor grow from layer to layer
                low = -high
            else:
                low, high = (0.5, 1.5) if name.endswith(("running_var", "weight")) else (-0.2, 0.2)
            if values.is_floating_point():
                values.copy_(torch.from_numpy(rng.uniform(low, high, tuple(values.shape))))
        return network


MODELS = {
    "compact": FixedModel(
        Network(name="compact", width=4),
        Preprocessing(dimensions=3, region="lesion", size=(24, 24, 24), spacing_mm=(1.5, 1.5, 1.5), intensity=WINDOW),
        threshold=0.8,
        calibrators=(Calibrator("temperature", {"temperature": 1.5}),),
        envelope=Envelope("CT", 40, {"tissue_fraction": Limit(0.0, 0.0, 0.4, 0.55)}),
    ),
    "planes": FixedModel(
        Network(name="planes", width=4, average_flips=True),
        Preprocessing(
            dimensions=3,
            region="lesion",
            size=(32, 32, 32),
            spacing_mm=(1.0, 1.0, 1.0),
            intensity=WINDOW,
            zoom=Zoom(column="diameter_mm", reference_mm=9.0, largest=2.0),
        ),
        threshold=0.3,
        calibrators=(
            Calibrator("platt", {"slope": 0.8, "intercept": -0.3}),
            Calibrator("isotonic", {"logits": (-2.0, 0.0, 2.0), "probabilities": (0.1, 0.4, 0.9)}),
        ),
        covariates=CovariateTerm({"diameter_mm": Covariate(scale="log", mean=2.2, deviation=0.5, weights=(0.8,))}),
        refer_zone=ReferZone(0.9, 0.35, 0.25, 100, 100, (0.8, 1.0), (0.8, 1.0)),
    ),
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Twelve cases of the demonstration, of which one is missing and one cut short."""
    path = write_demo_data(tmp_path_factory.mktemp("demo") / "data", cases=12, seed=5)
    missing, short, *_ = sorted((path.parent / "images").iterdir())
    missing.unlink()
    short.write_bytes(short.read_bytes()[:5000])
    return path


def score(model: Path, manifest: Path, out: Path) -> pd.DataFrame:
    """The rows of one run, less what is not stored; blanks are NaN."""
    assert run(["score", str(model), str(manifest), "--out", str(out), "--workers", "1", "--no-track"]) == 1
    return pd.read_parquet(out / "scores.parquet").drop(columns=NOT_STORED).replace("", None).fillna(float("nan"))


@pytest.mark.parametrize("name", MODELS)
def test_a_fixed_demonstration_gets_the_stored_rows(name, manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = score(MODELS[name].save(tmp_path / "model", name), manifest, tmp_path / "out")
    if os.environ.get(RENEW):
        rows.to_csv(STORED / f"{name}.csv", index=False, lineterminator="\n")
        pytest.fail(f"{name}.csv was written anew; look at what changed, and run again without {RENEW}")
    stored = pd.read_csv(STORED / f"{name}.csv")
    numbers = list(rows.select_dtypes("number"))
    pd.testing.assert_frame_equal(rows.drop(columns=numbers), stored.drop(columns=numbers), check_dtype=False)
    for column in numbers:
        tolerance = LOGIT_TOLERANCE if column == "logit" else PROBABILITY_TOLERANCE
        np.testing.assert_allclose(rows[column], stored[column], rtol=0, atol=tolerance, err_msg=column)
