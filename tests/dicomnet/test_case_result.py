"""What a row and its case become for a report."""

import pytest

from pipeline.cases.case import Case
from pipeline.dicomnet.objects.case_result import CaseResult, NamedDetector

ROW = {
    "case_id": "a",
    "status": "scored",
    "code": "",
    "reason": "",
    "warnings": "",
    "probability": 0.25,
    "decision": "negative",
    "threshold": 0.3,
    "scored_at": "2026-01-02T03:04:05+00:00",
    "image_sha256": None,
    "probability_b": 0.5,
    "decision_b": "positive",
}


def case(**extra):
    return Case(case_id="a", image="a", path="a", center_mm=(1.0, 2.0, 3.0), extra=extra)


def test_a_row_that_was_refused_has_no_number_whatever_else_it_says():
    result = CaseResult.of({**ROW, "status": "rejected", "code": "E_FORMAT"}, case())
    assert not result.is_scored
    assert result.threshold is None


@pytest.mark.parametrize(("cell", "value"), [("0.25", 0.25), ("1.5", None), ("", None), ("nan", None)])
def test_the_probability_of_being_a_lesion_is_a_candidates(cell, value):
    assert CaseResult.of(ROW, case(probability_nodule=cell)).lesion_probability == value


NAMED = {"model": "finder@" + "ab" * 6, "model_digest": "ab" * 32}


def test_a_candidate_names_its_detector():
    result = CaseResult.of(ROW, case(probability_nodule="0.25", **NAMED))
    assert result.detector == NamedDetector(NAMED["model"], NAMED["model_digest"])


@pytest.mark.parametrize(
    "changes",
    [{"model": "Doe, John"}, {"model_digest": "ab"}, {"model": "x\n@" + "ab" * 6}, {"probability_nodule": ""}],
)
def test_columns_of_another_meaning_name_no_detector(changes):
    assert CaseResult.of(ROW, case(**{"probability_nodule": "0.25", **NAMED, **changes})).detector is None


def test_findings_are_in_the_models_order():
    result = CaseResult.of(ROW, case(), ("malignant", "b"))
    assert [(finding.name, finding.probability, finding.decision) for finding in result.findings] == [
        ("malignant", 0.25, "negative"),
        ("b", 0.5, "positive"),
    ]


@pytest.mark.parametrize(("cell", "diameter"), [("7.5", 7.5), ("", None), ("large", None), ("-3", None), ("inf", None)])
def test_a_diameter_is_a_length_or_unknown(cell, diameter):
    assert CaseResult.of(ROW, case(diameter_mm=cell)).diameter_mm == diameter
