"""The row of a scan whose candidates could not all be scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.cases.case import Case
from pipeline.evaluation.detection.scan_probability import ScanProbability
from pipeline.imaging.image import ScanFacts
from pipeline.scoring.finding.candidate import Candidate
from pipeline.scoring.finding.finder import Found
from pipeline.scoring.finding.scan_worker import ScanWorker
from pipeline.scoring.rows import ModelIdentity, ScoreRow

FITTED = ScanProbability(leak=0.1, weight=1.0, classifier_digest="ab" * 32)
FACTS = ScanFacts("0" * 64, (100, 100, 100), (1.0, 1.0, 1.0), "RAS", "CT")


@dataclass
class FakeFinder:
    """Finds candidates of these probabilities of being a lesion."""

    nodule: tuple[float, ...]

    def read(self, case):
        return SimpleNamespace(scan=None)

    def find(self, scan):
        return Found(tuple(Candidate((0.0, 0.0, 0.0), 8.0, (p,)) for p in self.nodule), FACTS, (), {})


@dataclass
class FakeScorer:
    """Gives candidates these probabilities of malignancy; refuses where there is None."""

    malignant: tuple[float | None, ...]
    identity: ModelIdentity = ModelIdentity("c", "ab" * 32, "0")  # noqa: RUF009  # frozen
    descriptions: tuple[SimpleNamespace, ...] = (SimpleNamespace(covariates=()),)

    def prepare(self, case, *, scan):
        return int(case.case_id.split("#")[1]) - 1

    def score(self, batch):
        return [
            ScoreRow(
                case_id=f"ct#{number}",
                patient_id=None,
                image="ct",
                status="rejected" if self.malignant[number] is None else "scored",
                probability=self.malignant[number],
                model="c",
                model_digest="ab" * 32,
                preprocessing_digest="0",
                scored_at="",
                seconds=0.0,
            )
            for number in batch
        ]


def row_of(nodule, malignant, *, fitted=FITTED):
    worker = ScanWorker(FakeFinder(nodule), ModelIdentity("d", "0", "0"), FakeScorer(malignant), fitted)
    return worker.score([worker.prepare(Case(case_id="ct", image="ct", path=Path("ct")))])[0]


def test_where_all_were_scored_the_bounds_are_the_probability():
    row = row_of((0.8, 0.5), (0.5, 0.2))
    assert row.status == "scored"
    assert row.probability == row.probability_lower == row.probability_upper == pytest.approx(1 - 0.9 * 0.6 * 0.9)


def test_a_candidate_that_hardly_matters_leaves_a_probability_and_a_flag():
    row = row_of((0.8, 0.04), (0.5, None))
    assert (row.status, row.code, row.warnings) == ("flagged", "W_CANDIDATE_UNSCORED", "W_CANDIDATE_UNSCORED")
    assert row.reason.startswith("1 of 2 candidates could not be scored, so that the scan's probability lies between")
    assert row.reason.endswith("between 0.460 and 0.482")
    assert row.probability == pytest.approx((row.probability_lower + row.probability_upper) / 2)


def test_a_candidate_that_could_matter_leaves_bounds_alone():
    row = row_of((0.8, 0.5), (0.5, None))
    assert row.probability is None
    assert (row.probability_lower, row.probability_upper) == pytest.approx((0.46, 0.73))


def test_without_a_fit_for_the_classifier_the_flag_names_no_bounds():
    row = row_of((0.8, 0.5), (0.5, None), fitted=None)
    assert row.reason == "1 of 2 candidates could not be scored"
    assert (row.probability, row.probability_lower, row.probability_upper) == (None, None, None)
