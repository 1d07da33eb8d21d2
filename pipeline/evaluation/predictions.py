"""``predictions.parquet``: one row a judged case, all that calibration, evaluation and reports need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.evaluation.arrays import BoolArray, FloatArray, IntArray, patients_of_each_class
from pipeline.files import atomic_write

_SCHEMA = pa.schema(
    [
        pa.field("case_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("finding", pa.string(), nullable=False),
        pa.field("fold", pa.int64()),
        pa.field("seed", pa.int64()),
        pa.field("label", pa.int8()),
        pa.field("logit", pa.float64(), nullable=False),
        pa.field("probability", pa.float64()),
    ]
)
COLUMNS = tuple(_SCHEMA.names)
# Where cases were judged by folds: the threshold, and the limits of the refer zone, that decide each case.
FOLD_COLUMNS = ("fold_threshold", "fold_malignant_from", "fold_benign_to")
_KEY = ["case_id", "split", "finding", "fold", "seed"]
_DEFAULTS = {"finding": "malignant", "fold": None, "seed": None, "probability": None}


@dataclass(frozen=True, eq=False)
class Predictions:
    """Checked predictions; make them with ``from_frame`` or ``read_predictions``.

    Attributes:
        frame: the columns of the contract in their order and types, then the subgroup columns; one row a case,
            split, finding, fold and seed. Treat it as read-only.

    Three optional columns are not subgroups. ``fold_threshold`` decides a row, and was chosen on the cases of other
    folds; where it is blank or absent, the operating point's threshold decides. ``fold_malignant_from`` and
    ``fold_benign_to`` are the limits of the refer zone (``ReferZone``), blank where the other folds have too few cases.
    Whatever counts decisions takes its thresholds from ``thresholds``. The saved model has one operating point and one
    zone, chosen on the cases of all folds.
    """

    frame: pd.DataFrame

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, *, source: str = "predictions") -> Predictions:
        """Check a table and bring its columns to the types of the contract.

        Args:
            frame: ``case_id``, ``patient_id``, ``split``, ``label`` (0, 1 or missing) and ``logit``; optionally
                ``finding`` (default ``malignant``), ``fold``, ``seed`` and ``probability`` (missing before
                calibration); any other column is kept as a subgroup column.
            source: what to call the table in an error, as a file name.

        Raises:
            UsageError: at the first fault, with source, value, expected and the way out.
        """
        missing = [name for name in COLUMNS if name not in frame.columns and name not in _DEFAULTS]
        if missing:
            raise UsageError(
                f"{source}: has no column {', '.join(map(repr, missing))}; "
                "expected predictions as training and evaluation write them"
            )
        if not frame.columns.is_unique:
            twice = frame.columns[frame.columns.duplicated()][0]
            raise UsageError(f"{source}: has two columns {twice!r}; expected each name once; rename one")
        if not len(frame):
            raise UsageError(f"{source}: has no rows; expected at least one prediction")
        filled = frame.assign(**{name: value for name, value in _DEFAULTS.items() if name not in frame.columns})
        checked = pd.DataFrame({name: _column(filled[name], name, source) for name in COLUMNS})
        for name in frame.columns:
            if name in FOLD_COLUMNS:
                checked[str(name)] = _fold_column(frame[name], str(name), source)
            elif name not in COLUMNS:
                checked[str(name)] = frame[name].to_numpy() if frame[name].dtype == object else frame[name].array
        _check_rows(checked, source)
        return cls(checked)

    @property
    def extra(self) -> pd.DataFrame:
        """The subgroup columns."""
        return self.frame.drop(columns=[*COLUMNS, *(name for name in FOLD_COLUMNS if name in self.frame.columns)])

    @property
    def case_ids(self) -> npt.NDArray[np.str_]:
        """Case ids, shape (n,)."""
        return self.frame["case_id"].to_numpy(dtype=str)

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Patient ids, shape (n,)."""
        return self.frame["patient_id"].to_numpy(dtype=str)

    @property
    def patients_unknown(self) -> bool:
        """Whether the patient of every case is the case itself, as where a data set names no patients."""
        return bool((self.frame["case_id"] == self.frame["patient_id"]).all())

    @property
    def labels(self) -> IntArray:
        """0 or 1, shape (n,).

        Raises:
            UsageError: when a case is unlabelled; ask ``labelled()`` first.
        """
        if self.frame["label"].isna().any():
            raise UsageError(
                f"predictions: {int(self.frame['label'].isna().sum())} cases are unlabelled; leave them out first"
            )
        return self.frame["label"].to_numpy(dtype=np.int64)

    @property
    def logits(self) -> FloatArray:
        """Uncalibrated logits, shape (n,)."""
        return self.frame["logit"].to_numpy(dtype=np.float64)

    @property
    def calibrated(self) -> bool:
        """Whether every row has a probability."""
        return not bool(self.frame["probability"].isna().any())

    @property
    def probabilities(self) -> FloatArray:
        """Calibrated probabilities, shape (n,).

        Raises:
            UsageError: when a row has none.
        """
        if not self.calibrated:
            raise UsageError(
                f"predictions: {int(self.frame['probability'].isna().sum())} rows have no probability; "
                "apply the model's calibrator first"
            )
        return self.frame["probability"].to_numpy(dtype=np.float64)

    def thresholds(self, otherwise: npt.ArrayLike) -> FloatArray:
        """The threshold that decides each case, shape (n,).

        Args:
            otherwise: of the operating point, for rows whose fold has none of its own; one, or one a row.
        """
        chosen = np.broadcast_to(np.asarray(otherwise, dtype=np.float64), (len(self),))
        if "fold_threshold" not in self.frame.columns:
            return chosen.copy()
        own = self.frame["fold_threshold"].to_numpy(dtype=np.float64)
        return np.where(np.isnan(own), chosen, own)

    @property
    def out_of_fold(self) -> bool:
        """Whether the predictions are of several networks, each of the fold that it was not trained on."""
        return bool(self.frame["fold"].nunique() > 1)

    @property
    def decided_by_fold(self) -> bool:
        """Whether a row has a threshold of its fold."""
        return "fold_threshold" in self.frame.columns and bool(self.frame["fold_threshold"].notna().any())

    def patients_by_class(self) -> tuple[int, int]:
        """How many patients have malignant, and how many have benign, cases; the rows must be labelled."""
        return patients_of_each_class(self.labels, self.patients)

    def __len__(self) -> int:
        return len(self.frame)

    def where(
        self, *, split: str | None = None, finding: str | None = None, fold: int | None = None, seed: int | None = None
    ) -> Predictions:
        """The rows that have all the values given; there may be none."""
        keep = np.ones(len(self.frame), dtype=bool)
        for name, value in (("split", split), ("finding", finding), ("fold", fold), ("seed", seed)):
            if value is not None:
                keep &= (self.frame[name] == value).fillna(value=False).to_numpy(dtype=bool)
        return self.rows(keep)

    def rows(self, members: BoolArray) -> Predictions:
        """Some of the rows, as a mask of shape (n,) says."""
        return Predictions(self.frame[members].reset_index(drop=True))

    def labelled(self) -> Predictions:
        """The rows with a label."""
        return self.rows(self.frame["label"].notna().to_numpy())

    def with_probabilities(self, apply: Callable[[FloatArray], FloatArray]) -> Predictions:
        """The same rows with ``probability = apply(logits)``, as ``with_probabilities(calibrator.apply)``."""
        return Predictions.from_frame(self.frame.assign(probability=apply(self.logits)))


def read_predictions(path: Path) -> Predictions:
    """Read and check a predictions file.

    Raises:
        UsageError: when it cannot be read or breaks the contract; one line with file, value, expected, remedy.
    """
    try:
        frame = pq.read_table(path, partitioning=None).to_pandas()
    except FileNotFoundError:
        raise UsageError(f"{path}: does not exist; give a predictions.parquet") from None
    except (OSError, pa.ArrowException) as error:
        detail = str(error).splitlines()[0]
        raise UsageError(f"{path}: is not a readable Parquet file ({detail}); write it again") from None
    return Predictions.from_frame(frame, source=str(path))


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a predictions file, whole or not at all; equal predictions give equal bytes."""
    frame = predictions.frame
    core = pa.Table.from_pandas(frame[list(COLUMNS)], schema=_SCHEMA, preserve_index=False)
    extra = pa.Table.from_pandas(frame.drop(columns=list(COLUMNS)), preserve_index=False)
    for field in extra.schema:
        core = core.append_column(field, extra.column(field.name))
    with atomic_write(path) as temporary:
        # pandas' own metadata holds its version, and would change the bytes with it.
        pq.write_table(core.replace_schema_metadata(None), temporary, compression="zstd")


def _column(values: pd.Series, name: str, source: str) -> pd.Series:
    """One column of the contract, in its type, with an index from 0."""
    values = values.reset_index(drop=True)
    if name in ("case_id", "patient_id", "split", "finding"):
        wrong = values.isna() | (values.astype(str).str.strip() == "")
        if wrong.any():
            raise UsageError(
                f"{source}: {name}: row {int(np.argmax(wrong)) + 1} is blank; expected text in every row; fill it in"
            )
        return values.astype(str).astype(object)
    try:
        numbers = pd.to_numeric(values).astype("Float64")
    except (TypeError, ValueError) as error:
        raise UsageError(f"{source}: {name}: {error}; expected numbers; write the file again") from None
    if name in ("logit", "probability"):
        return numbers.astype("float64")
    filled = numbers.dropna()
    if not (filled == filled.round()).all():
        raise UsageError(
            f"{source}: {name}: {filled[filled != filled.round()].iloc[0]} is not a whole number; write the file again"
        )
    if name != "label":
        return numbers.astype("Int64")
    neither = filled[~filled.isin([0.0, 1.0])]
    if len(neither):
        raise UsageError(
            f"{source}: label: {neither.iloc[0]:g} is neither 0 (benign) nor 1 (malignant); "
            "correct it, or leave it blank"
        )
    return numbers.astype("Int8")


def _fold_column(values: pd.Series, name: str, source: str) -> FloatArray:
    """Thresholds or limits of folds; NaN where there is none."""
    try:
        numbers = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{source}: {name}: {error}; expected numbers; write the file again") from None
    present = numbers[~np.isnan(numbers)]
    wrong = present[(present < 0.0) | (present > 1.0)]
    if wrong.size:
        raise UsageError(f"{source}: {name}: {wrong[0]:g} is outside [0, 1]; write the file again")
    return numbers


def _check_rows(frame: pd.DataFrame, source: str) -> None:
    finite = np.isfinite(frame["logit"].to_numpy())
    if not finite.all():
        row = int(np.argmin(finite))
        raise UsageError(
            f"{source}: logit: {frame['logit'][row]} of case {frame['case_id'][row]} is not finite; "
            "expected finite numbers; look at the training"
        )
    probability = frame["probability"].to_numpy()
    valid = np.isnan(probability) | ((probability >= 0.0) & (probability <= 1.0))
    if not valid.all():
        row = int(np.argmin(valid))
        raise UsageError(
            f"{source}: probability: {probability[row]} of case {frame['case_id'][row]} is outside [0, 1]; "
            "put calibrated probabilities there and logits under 'logit'"
        )
    split_names = frame.groupby(["patient_id", "fold", "seed"], dropna=False)["split"].nunique()
    if (split_names > 1).any():
        patient = split_names.index[int(np.argmax(split_names > 1))][0]
        raise UsageError(
            f"{source}: patient {patient} is in {int(split_names.max())} splits; expected one, or the judgement is not "
            "about unseen patients; split by patient and predict again"
        )
    twice = frame.duplicated(_KEY)
    if twice.any():
        case = frame["case_id"][int(np.argmax(twice))]
        raise UsageError(
            f"{source}: case {case} occurs twice in one split, finding, fold and seed; "
            "expected one row; keep one, or number the folds or seeds"
        )
