"""A classifier in memory, as ``import pipeline`` offers it; nothing heavy is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.evaluation.decisions.operating_points import OperatingPoint
    from pipeline.scoring.model_directory import Model


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory.

    Attributes:
        name: as it was asked for: a model directory or an MLflow model URI.
        model: its networks, calibrators and description.
    """

    name: str
    model: Model

    @property
    def contract(self) -> str:
        """What a case must be, in words: modality, region, spacing and columns."""
        return self.model.description.input_contract

    @property
    def thresholds(self) -> dict[str, OperatingPoint]:
        """By finding, the threshold and the rule that chose it; the label is called ``malignant``."""
        return dict(zip(self.model.findings, self.model.operating_points, strict=True))

    def predict(
        self, cases: pd.DataFrame | str | Path | Sequence[str | Path], *, root: str | Path = "."
    ) -> pd.DataFrame:
        """Score cases in this process.

        Args:
            cases: a DataFrame of manifest columns (``image``; for lesion models ``center_x_mm``, ``center_y_mm``,
                ``center_z_mm`` and ``coordinate_system``; covariates; ``image_base64`` in place of a path), or paths
                of scans, folders or manifests.
            root: of a DataFrame: the folder that relative paths start from, and that no image may leave.

        Returns:
            Score rows, one a case, always: ``probability`` in [0, 1], ``decision``, or ``code`` and ``reason`` of what
            is wrong.

        Raises:
            UsageError: for a DataFrame without ``image``, or a path that does not exist.
        """
        import pandas as pd

        from pipeline.scoring.frames import score_frame, score_paths
        from pipeline.scoring.scorer import Scorer

        scorer = Scorer(self.model)
        if isinstance(cases, pd.DataFrame):
            return score_frame(scorer, cases, root=Path(root).resolve())
        return score_paths(scorer, [cases] if isinstance(cases, str | Path) else cases)


def load_model(name: str | Path) -> LoadedModel:
    """Load a model and verify every digest in it.

    Args:
        name: a model directory, or an MLflow model URI as ``models:/malignancy@champion``.

    Raises:
        ModelError: when there is none, or it is damaged.

    Example:
        >>> import pipeline
        >>> pipeline.load_model("nowhere")
        Traceback (most recent call last):
            ...
        pipeline.errors.ModelError: nowhere: holds no model.json; give a model directory or an MLflow model URI
    """
    from pipeline.config.experiment import Tracking
    from pipeline.scoring import model_directory
    from pipeline.tracking.registry import model_folder

    return LoadedModel(str(name), model_directory.load_model(model_folder(str(name), Tracking())))


def model_name(model: str | Path | LoadedModel) -> str:
    """Name or path of a model, of a loaded one the name that it was loaded by."""
    return model.name if isinstance(model, LoadedModel) else str(model)
