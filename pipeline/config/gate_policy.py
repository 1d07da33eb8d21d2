"""The limits of the promotion gate: what a challenger must show, and at which risk."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from pipeline.config.inputs import Fraction, Probability, Section

Margin = Annotated[float, Field(gt=0, lt=1)]
Correlation = Annotated[float, Field(ge=0, lt=1)]


class GatePolicy(Section):
    """What the gate asks; a file of these keys is what ``malignancy promote --policy`` takes.

    Margins are for the challenger less the champion, and less the anchor.
    """

    auroc_margin: Margin = Field(0.02, description="the lower limit of the difference in AUROC must lie above minus it")
    sensitivity_margin: Margin = Field(0.02, description="likewise in sensitivity, each model at its own threshold")
    specificity_margin: Margin = Field(0.02, description="likewise in specificity")
    referred_margin: Margin = Field(0.05, description="the upper limit of the difference in the share referred")
    alpha: Fraction = Field(
        0.05, description="chance of promoting a model worse by a margin, over all looks at the same patients"
    )
    prevalence: Fraction | None = Field(
        None, description="share of malignant cases where the models are used; null is that of the cases given"
    )
    patients_a_class: PositiveInt = Field(
        40, description="unseen patients with malignant, and with benign, cases, at least"
    )
    least_power: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.8, description="a look is taken only where an equal challenger would pass with this chance; 0 is always"
    )
    expected_auroc: Annotated[float, Field(gt=0.5, lt=1)] = Field(0.85, description="assumed before looking")
    expected_sensitivity: Fraction = Field(0.9, description="assumed before looking, at the models' thresholds")
    expected_correlation: Correlation = Field(
        0.8, description="of the two models' scores within a class, assumed before looking"
    )
    lost_share: Probability = Field(0.02, description="share of the cases that the challenger alone may refuse")
    parity: Annotated[float, Field(ge=0)] = Field(
        1e-6, description="largest difference of a probability between command and registered MLflow model"
    )
    subgroup_auroc_drop: Margin = Field(0.10, description="a fall in AUROC that is a subgroup's collapse")
    subgroup_sensitivity_drop: Margin = Field(0.15, description="likewise in sensitivity")
    subgroup_alpha: Fraction = Field(0.05, description="chance of seeing a collapse anywhere where there is none")
    subgroup_power: Fraction = Field(
        0.8, description="a subgroup is judged where a collapse would be seen with this chance"
    )
    unjudged_share: Probability = Field(
        0.1, description="share of a column's cases that may lie in subgroups too small to judge"
    )

    def changes(self) -> dict[str, Any]:
        """Keys whose value is not the default."""
        default = GatePolicy()
        return {key: value for key, value in self.model_dump().items() if value != getattr(default, key)}

    def describe(self) -> str:
        """In words, for the record of a decision."""
        changed = ", ".join(f"{key} {value:g}" for key, value in self.changes().items())
        return f"{changed}; otherwise the defaults" if changed else "the defaults"
