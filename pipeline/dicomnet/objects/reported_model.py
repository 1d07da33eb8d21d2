"""Facts about the model for result objects, as plain values that can be kept beside the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import ValidationError

from pipeline.cases.case import Point
from pipeline.config.inputs import Limits, Modality, Preprocessing, Section, Zoom
from pipeline.errors import UsageError
from pipeline.evaluation.calibration.calibrator import Calibrator
from pipeline.evaluation.decisions.operating_points import OperatingPoint
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.scoring.model_description import ModelDescription
from pipeline.scoring.rows import ModelIdentity


class ReportedModel(Section):
    """A model, or an ensemble, as described in results.

    Attributes:
        name: names and short digests, as in the rows.
        digest: as in the rows.
        findings: of the probabilities; the first is malignancy.
        label_source: whose opinion or which test the labels are.
        intensities: ``real`` or ``simulated``.
        calibration: how probabilities were calibrated; of several networks each way once.
        modality: as configured.
        operating_points: of each finding, as in ``model.json``; empty for several models, whose mean decides.
        refer_zone: which probabilities are left to a human; None without a zone.
        region_mm: extent of the region around a lesion along R, A and S, before a zoom; None for whole images.
        zoom: by which small lesions are enlarged.
        window: the values that are shown black and white; None where the model has no window.
        limits: within which its scans are read.
    """

    name: str
    digest: str
    findings: tuple[str, ...]
    label_source: str
    intensities: Literal["real", "simulated"]
    calibration: str
    modality: Modality
    operating_points: tuple[dict[str, Any], ...]
    refer_zone: str | None
    region_mm: Point | None
    zoom: Zoom | None = None
    window: tuple[float, float] | None
    limits: Limits = Limits()

    @classmethod
    def of(cls, models: Sequence[ModelDescription], identity: ModelIdentity) -> Self:
        """From the descriptions of the models that score together and the identity in their rows."""
        first = models[0]
        calibrators = [Calibrator.from_json(dict(member.calibrator)) for model in models for member in model.members]
        zone = None if first.refer_zone is None else ReferZone.from_json(first.refer_zone).describe()
        return cls(
            name=identity.model,
            digest=identity.model_digest,
            findings=first.findings,
            label_source=first.label.source,
            intensities=first.label.intensities,
            calibration=", ".join(dict.fromkeys(calibrator.describe() for calibrator in calibrators)),
            modality=first.modality,
            operating_points=first.operating_points if len(models) == 1 else (),
            refer_zone=zone,
            region_mm=_region(first.preprocessing),
            zoom=first.preprocessing.zoom,
            window=_window(first.preprocessing),
            limits=first.preprocessing.limits,
        )

    def region_around(self, diameter_mm: float | None) -> Point | None:
        """Extent of the region around a lesion of this size along R, A and S, mm; None for whole images."""
        if self.region_mm is None:
            return None
        factor = 1.0
        if self.zoom is not None and self.zoom.column == "diameter_mm" and diameter_mm is not None:
            factor = self.zoom.factor(diameter_mm)
        right, anterior, superior = self.region_mm
        return right / factor, anterior / factor, superior / factor

    def describe_operating_point(self, place: int) -> str:
        """One line: the rule that chose a finding's threshold, and what it rests on.

        Args:
            place: of the finding.
        """
        if not self.operating_points:
            return "the mean of several models' thresholds"
        finding = self.findings[place]
        point = OperatingPoint.from_json(self.operating_points[place])
        return point.describe(positive=finding, negative="benign" if place == 0 else f"not {finding}")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what ``model_dump`` wrote.

        Raises:
            UsageError: for anything else.
        """
        try:
            return cls.model_validate(value, strict=False)
        except ValidationError:
            raise UsageError("what it says of the model is not what scoring writes; score again") from None


def _region(preprocessing: Preprocessing) -> Point | None:
    if preprocessing.region != "lesion" or preprocessing.spacing_mm is None:
        return None
    right, anterior, superior = (
        nodes * mm for nodes, mm in zip(preprocessing.size, preprocessing.spacing_mm, strict=True)
    )
    return right, anterior, superior


def _window(preprocessing: Preprocessing) -> tuple[float, float] | None:
    lower, upper = preprocessing.intensity.lower, preprocessing.intensity.upper
    return None if lower is None or upper is None else (lower, upper)
