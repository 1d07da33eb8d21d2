"""TRIPOD+AI and CLAIM items in a report: answered where a program can know, open where a person must.

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
        answer: what a program can say; None where a person must.
    """

    place: str
    topic: str
    answer: str | None = None


# Key (of an answer that may be computed; blank where none can be), place, topic.
_ITEMS = (
    ("", "TRIPOD+AI 3a-c, CLAIM", "Clinical background, intended use, users and known health inequalities"),
    ("", "TRIPOD+AI 4, CLAIM", "Objective, and whether it is development, validation or both"),
    ("source", "TRIPOD+AI 5a, CLAIM", "Source of the data"),
    ("", "TRIPOD+AI 5b", "Dates of accrual and follow-up"),
    ("", "TRIPOD+AI 6a-c, CLAIM", "Setting, eligibility criteria and treatments"),
    ("preparation", "TRIPOD+AI 7, CLAIM", "Preparation of the data, and whether it is alike in all groups"),
    ("outcome", "TRIPOD+AI 8a, CLAIM", "Outcome and reference standard"),
    ("", "TRIPOD+AI 8b-c, CLAIM", "Who labelled, their experience, agreement and blinding"),
    ("predictors", "TRIPOD+AI 9a-b, CLAIM", "What the model sees"),
    ("size", "TRIPOD+AI 10, CLAIM", "Sample size"),
    ("", "TRIPOD+AI 10", "Why this sample size is enough"),
    ("missing", "TRIPOD+AI 11, CLAIM", "Missing data and exclusions"),
    ("partitions", "TRIPOD+AI 12a, CLAIM", "Partitions of the data, and at which level they are disjoint"),
    ("model", "TRIPOD+AI 12c, 22, CLAIM", "Model, calibration and their specification"),
    ("measures", "TRIPOD+AI 12e, CLAIM", "Measures of performance and their uncertainty"),
    ("fairness", "TRIPOD+AI 14, 23b, CLAIM", "Results by group"),
    ("output", "TRIPOD+AI 15", "Output of the model and how its threshold was chosen"),
    ("", "TRIPOD+AI 17, CLAIM", "Ethical approval and consent"),
    ("", "TRIPOD+AI 18a-c, CLAIM", "Funding, conflicts of interest, protocol"),
    ("", "TRIPOD+AI 18d, CLAIM", "Registration of the study"),
    ("code", "TRIPOD+AI 18f, CLAIM", "Code and versions"),
    ("", "TRIPOD+AI 18e, CLAIM", "Availability of the data"),
    ("", "TRIPOD+AI 19", "Involvement of patients and the public"),
    ("flow", "TRIPOD+AI 20a, CLAIM", "Flow of participants"),
    ("", "TRIPOD+AI 20b-c, CLAIM", "Characteristics of the participants, overall and by partition"),
    ("performance", "TRIPOD+AI 23a, CLAIM", "Performance with confidence intervals"),
    ("", "CLAIM", "Analysis of incorrectly classified cases"),
    ("", "TRIPOD+AI 25-26, CLAIM", "Interpretation, limitations, known failure modes"),
    ("", "TRIPOD+AI 27a-c", "Use in practice: poor input, users' expertise, next steps"),
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
