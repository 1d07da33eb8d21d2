"""The smallest fitted classifier that scikit-learn's calibration accepts: its decision function is the logit.

In a module of its own, so that reading ``Calibrator`` in a scoring worker does not import scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from pipeline.evaluation.arrays import FloatArray, IntArray


class LogitClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Passes a column of logits through unchanged."""

    def fit(self, features: FloatArray, labels: IntArray) -> LogitClassifier:
        """Note the classes; ``features`` are the logits, shape (n, 1)."""
        self.classes_: Any = np.unique(labels)
        self.n_features_in_ = features.shape[1]
        return self

    def decision_function(self, features: FloatArray) -> FloatArray:
        """The logits, shape (n,)."""
        return features[:, 0]

    def predict(self, features: FloatArray) -> Any:
        """The class at a logit of 0, shape (n,)."""
        return self.classes_[(features[:, 0] > 0.0).astype(np.int64)]
