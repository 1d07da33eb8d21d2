"""Whether a table is of the kind that a model was made with."""

import pytest

from pipeline.cases.table_facts import TableFacts
from pipeline.workflow.judging.table_truth import truth_differences

MODEL = {"label_source": "histology", "intensities": "real"}


@pytest.mark.parametrize("facts", [TableFacts(), TableFacts({"Histology ": 3}, {"real": 3})])
def test_nothing_known_or_the_same_truth_is_no_difference(facts):
    assert truth_differences(facts, **MODEL).lines == []
    assert truth_differences(facts, label_source=" HISTOLOGY", intensities="real").lines == []


def test_another_truth_and_a_mix_are_told_with_counts():
    facts = TableFacts({"histology": 3, "opinion of four readers": 2}, {"real": 4, "simulated": 1})
    found = truth_differences(facts, **MODEL)
    assert found.lines == [
        "intensities of the cases: real (4), simulated (1); of the model: real",
        "labels of the cases: histology (3), 'opinion of four readers' (2); of the model: histology",
    ]
