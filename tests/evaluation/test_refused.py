"""Refused cases counted into sensitivity and specificity: by hand, and as the report and the summary say it."""

import numpy as np
import pytest
from studies import point, predictions

from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals.clustered import proportion_interval
from pipeline.evaluation.refused import NOT_KNOWN, RefusedCases, with_refused
from pipeline.evaluation.report.page import ReportData, render_report

TEST = predictions(200, seed=8)
REFUSED = RefusedCases(labels=[1, 0, 1, 1, 0, 0, 0], patients=["new", "new", "p3", "other", "p3", "p4", "p4"])


def shares(found):
    return {
        name: (getattr(found, name).sensitivity.estimate, getattr(found, name).specificity.estimate)
        for name in ("read_alone", "as_mistakes", "as_positive")
    }


def test_refused_cases_are_counted_as_mistakes_and_as_positive():
    headline = evaluate(TEST, operating_point=point())
    found, counts = with_refused(TEST, REFUSED, threshold=0.2), headline.confusion
    malignant, benign = int(TEST.labels.sum()), int((TEST.labels == 0).sum())
    assert shares(found)["read_alone"] == (headline["sensitivity"].estimate, headline["specificity"].estimate)
    assert shares(found)["as_mistakes"] == pytest.approx(
        (counts.true_positive / (malignant + 3), counts.true_negative / (benign + 4))
    )
    assert shares(found)["as_positive"] == pytest.approx(
        ((counts.true_positive + 3) / (malignant + 3), counts.true_negative / (benign + 4))
    )
    assert (found.cases, found.malignant, found.patients) == (7, 3, 4)


def test_intervals_keep_a_refused_case_with_its_patients_others():
    found = with_refused(TEST, REFUSED, threshold=0.2)
    right = np.concatenate([(TEST.probabilities >= 0.2)[TEST.labels == 1], [False] * 3])
    patients = np.concatenate([TEST.patients[TEST.labels == 1], ["new", "p3", "other"]])
    assert found.as_mistakes.sensitivity == proportion_interval(right, patients)
    headline = evaluate(TEST, operating_point=point())
    assert found.read_alone.sensitivity == headline["sensitivity"]
    assert found.read_alone.specificity == headline["specificity"]


def test_without_refused_cases_all_three_are_the_headline():
    found = with_refused(TEST, RefusedCases(), threshold=0.2)
    assert found.read_alone == found.as_mistakes == found.as_positive
    assert found.describe() == "no labelled case was refused"


def test_unlabelled_rows_and_thresholds_of_folds_are_as_in_the_headline():
    frame = TEST.frame.assign(fold_threshold=np.where(np.arange(200) % 2, 0.1, 0.4), label=TEST.frame["label"])
    frame.loc[:9, "label"] = None
    folds = TEST.from_frame(frame)
    found, headline = with_refused(folds, REFUSED, threshold=0.2), evaluate(folds, operating_point=point())
    assert found.read_alone.sensitivity == headline["sensitivity"]
    assert found.read_alone.specificity == headline["specificity"]


def test_why_it_is_not_known_is_said():
    assert with_refused(TEST, None, threshold=0.2) == NOT_KNOWN
    benign = TEST.from_frame(TEST.frame[TEST.frame["label"] == 0])
    assert "expected" in with_refused(benign, RefusedCases(), threshold=0.2)


def test_a_line_says_both_ends():
    found = with_refused(TEST, REFUSED, threshold=0.2)
    line = found.describe()
    assert line.startswith("7 labelled cases refused, 3 malignant: as mistakes, sensitivity 0.")
    for interval in (found.as_mistakes.sensitivity, found.as_mistakes.specificity, found.as_positive.sensitivity):
        assert str(interval) in line
    assert found.to_json()["as_mistakes"]["sensitivity"] == found.as_mistakes.sensitivity.to_json()


def page(refused):
    evaluation = evaluate(TEST, operating_point=point(), resamples=100)
    inputs = ReportData(title="t", model="m", calibration="none", evaluation=evaluation, with_refused=refused)
    return render_report(inputs)


def test_report_has_the_table_or_says_why_not():
    found = with_refused(TEST, REFUSED, threshold=0.2)
    text = page(found)
    assert "7 labelled cases of 4 patients, 3 malignant, could not be read" in text
    row = text.split("are positive: handed to a person")[1].split("</tr>")[0]
    assert f"{found.as_positive.sensitivity.estimate:.3f} (" in row
    assert "No labelled case was refused" in page(with_refused(TEST, RefusedCases(), threshold=0.2))
    assert f"Refused cases: {NOT_KNOWN}." in page(NOT_KNOWN)
