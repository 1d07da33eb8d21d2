"""TRIPOD+AI and CLAIM items in a report: those that can be computed are answered, the others left to the author.

Source: Collins et al., 2024 (BMJ 385:e078378), by number; Tejani et al., 2024 (Radiology: AI 6:e240300), by topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One item of a reporting guideline.

    Attributes:
        place: guideline and number, as ``TRIPOD+AI 6b``.
        topic: what it asks, in a few words.
        answer: the computed answer; None where the author must write it.
    """

    place: str
    topic: str
    answer: str | None = None


# Key (of an answer that may be computed; blank where none can be), place, topic. Every sub-item of TRIPOD+AI's 27 items
# has a row, in order; CLAIM is named in the rows whose topics it asks for too.
_ITEMS = (
    ("", "TRIPOD+AI 1, CLAIM", "Title: development or evaluation of a prediction model, target population, outcome"),
    ("", "TRIPOD+AI 2, CLAIM", "Abstract, by TRIPOD+AI for Abstracts"),
    ("", "TRIPOD+AI 3a, CLAIM", "Clinical background, and why the model is made or evaluated"),
    ("", "TRIPOD+AI 3b, CLAIM", "Target population, intended use in the care pathway, intended users"),
    ("", "TRIPOD+AI 3c", "Known health inequalities between groups"),
    ("", "TRIPOD+AI 4, CLAIM", "Objective, and whether it is development, evaluation or both"),
    ("source", "TRIPOD+AI 5a, CLAIM", "Source of the data (why these, and how representative: a person's to say)"),
    ("", "TRIPOD+AI 5b", "Dates of accrual and follow-up"),
    ("", "TRIPOD+AI 6a, CLAIM", "Setting, number and location of centres"),
    ("", "TRIPOD+AI 6b, CLAIM", "Eligibility criteria"),
    ("", "TRIPOD+AI 6c", "Treatments received, and how they were handled"),
    (
        "preparation",
        "TRIPOD+AI 7, CLAIM",
        "Preparation and checks of the data, and whether alike in all groups",
    ),
    ("outcome", "TRIPOD+AI 8a, CLAIM", "Outcome and reference standard"),
    ("", "TRIPOD+AI 8b, CLAIM", "Who labelled: their qualifications and agreement"),
    ("", "TRIPOD+AI 8c", "Blinding of those who assessed the outcome"),
    ("", "TRIPOD+AI 9a", "Why these predictors were chosen"),
    ("predictors", "TRIPOD+AI 9b, CLAIM", "What the model sees"),
    ("", "TRIPOD+AI 9c", "Who assessed predictors that need interpretation, as a lesion's centre or diameter"),
    ("size", "TRIPOD+AI 10, CLAIM", "Sample size (why it is enough: a person's to say)"),
    ("missing", "TRIPOD+AI 11, CLAIM", "Missing data and exclusions"),
    ("partitions", "TRIPOD+AI 12a, CLAIM", "How the data were used: partitions, and at which level they are disjoint"),
    ("handling", "TRIPOD+AI 12b, CLAIM", "How predictors were handled: form, scaling, transformation"),
    ("model", "TRIPOD+AI 12c, CLAIM", "Type of model, how it was built and validated internally"),
    ("clusters", "TRIPOD+AI 12d", "How differences between clusters, as hospitals, were estimated"),
    ("measures", "TRIPOD+AI 12e, CLAIM", "Measures of performance and their uncertainty"),
    ("updating", "TRIPOD+AI 12f", "Updating of the model, as recalibration"),
    ("calculation", "TRIPOD+AI 12g", "How predictions were calculated in the evaluation"),
    ("balance", "TRIPOD+AI 13", "Class imbalance: what was done about it, and recalibration after it"),
    ("fairness", "TRIPOD+AI 14, CLAIM", "Approaches to fairness"),
    ("output", "TRIPOD+AI 15, CLAIM", "Output of the model and how its threshold was chosen"),
    ("differences", "TRIPOD+AI 16", "Differences between development and evaluation data"),
    ("", "TRIPOD+AI 17, CLAIM", "Ethical approval and consent"),
    ("", "TRIPOD+AI 18a, CLAIM", "Funding"),
    ("", "TRIPOD+AI 18b", "Conflicts of interest"),
    ("", "TRIPOD+AI 18c, CLAIM", "Study protocol"),
    ("", "TRIPOD+AI 18d, CLAIM", "Registration of the study"),
    ("", "TRIPOD+AI 18e, CLAIM", "Availability of the data"),
    ("code", "TRIPOD+AI 18f, CLAIM", "Code and versions"),
    ("", "TRIPOD+AI 19", "Involvement of patients and the public"),
    ("flow", "TRIPOD+AI 20a, CLAIM", "Flow of participants"),
    ("", "TRIPOD+AI 20b, CLAIM", "Characteristics of the participants, overall and by partition"),
    ("", "TRIPOD+AI 20c", "Comparison of predictors and outcome with the development data"),
    ("numbers", "TRIPOD+AI 21, CLAIM", "Participants and outcome events in each analysis"),
    ("specification", "TRIPOD+AI 22, CLAIM", "Specification of the model, so that others can use it"),
    ("performance", "TRIPOD+AI 23a, CLAIM", "Performance with confidence intervals, in key subgroups too"),
    ("cluster_results", "TRIPOD+AI 23b", "Performance by cluster, as hospital or scanner"),
    ("updated", "TRIPOD+AI 24", "Results of updating the model"),
    ("", "CLAIM", "Analysis of incorrectly classified cases"),
    ("", "TRIPOD+AI 25, CLAIM", "Interpretation, with fairness and earlier studies"),
    ("", "TRIPOD+AI 26, CLAIM", "Limitations, known failure modes"),
    ("poor_input", "TRIPOD+AI 27a", "Use in practice: input that is of poor quality or missing"),
    ("", "TRIPOD+AI 27b", "Use in practice: what is asked of users, and their expertise"),
    ("", "TRIPOD+AI 27c", "Next steps, applicability and generalisability"),
)
ANSWERS = tuple(key for key, _, _ in _ITEMS if key)


def checklist(answers: Mapping[str, str]) -> tuple[Item, ...]:
    """All items in the guidelines' order.

    Args:
        answers: what is known, by the keys of ``ANSWERS``; a key left out is left to a person.

    Raises:
        KeyError: for an answer to no item.
    """
    unknown = set(answers) - set(ANSWERS)
    if unknown:
        raise KeyError(f"no item of the checklist is called {sorted(unknown)}")
    return tuple(Item(place, topic, answers.get(key) or None if key else None) for key, place, topic in _ITEMS)
