"""Columns that are used wherever a manifest has them, without being configured.

These are facts of lung nodules: everything else in this room takes columns and edges as arguments.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from pipeline.evaluation.readers.label_certainty import RatingScale

SUBGROUP_COLUMNS = ("site", "scanner", "manufacturer", "sex", "age", "diameter_mm")
# Edges of the columns that are numbers. From 6 to 15 mm a nodule's malignancy is in doubt, and its diameter alone says
# least: that band is shown beside the headline.
SUBGROUP_BANDS: Mapping[str, tuple[float, ...]] = {"diameter_mm": (6.0, 15.0), "age": (50.0, 65.0, 75.0)}
HEADLINE_BAND = ("diameter_mm", "6 to 15")
RATING_SCALE = RatingScale("mean_malignancy", middle=3.0)  # mean of ratings, 1 (surely benign) to 5 (surely malignant)


def usual_edges(values: pd.Series) -> tuple[float, ...] | None:
    """Edges of ``SUBGROUP_BANDS`` for a column that has some and holds numbers; None otherwise."""
    edges = SUBGROUP_BANDS.get(str(values.name))
    numeric = pd.to_numeric(values.dropna(), errors="coerce").notna().all()
    return edges if bool(numeric) else None
