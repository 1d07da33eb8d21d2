"""Which rejected cases would have been judged."""

import pytest

from pipeline.cases.case import Case
from pipeline.errors import CaseError, Code
from pipeline.workflow.cohort import Cohort


def rejected(case_id, label):
    case = Case(
        case_id=case_id, image=f"{case_id}.nii.gz", path=f"/{case_id}.nii.gz", label=label, patient_id=f"of {case_id}"
    )
    return case, CaseError(Code.E_NOT_FOUND, case.path, "is not there")


@pytest.mark.parametrize(
    ("judged", "other"), [("test", "train"), ("test", "validation"), ("test", "calibration"), ("fold-0", "train")]
)
def test_labelled_cases_of_the_judged_split_or_of_any_fold_are_refused(judged, other):
    cases = (("a", 1), ("b", 0), ("c", None), ("d", 1), ("e", 1))
    cohort = Cohort((), tuple(rejected(*each) for each in cases), 0, 0)
    found = cohort.refused({"a": judged, "b": judged, "c": judged, "d": other})
    assert (found.labels, found.patients) == ([1, 0], ["of a", "of b"])
