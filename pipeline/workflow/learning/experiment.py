"""The experiment of a training, checked before anything heavy is imported and any scan is read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cases.case import RESERVED_COLUMNS, Case
from pipeline.cases.findings import require_findings, require_findings_in_splits
from pipeline.cases.label_words import LabelWords
from pipeline.cases.manifest import Manifest, read_manifest
from pipeline.cases.plan import Plan, describe_plan, plan_training
from pipeline.cases.splits import Splits, assign_folds, assign_splits
from pipeline.config.experiment import Config
from pipeline.config.file import load_config, missing_file
from pipeline.console import one_line
from pipeline.errors import ConfigError
from pipeline.files import sha256_json
from pipeline.workflow.judging.table_truth import TruthDifferences, truth_differences

_COLUMN_KEYS = ("baseline_columns", "oracle_columns", "subgroups", "readers")
_DIAMETER = "diameter_mm"  # column of the default baseline


@dataclass(frozen=True)
class Experiment:
    """A configuration with the table that it names, and the split of each case.

    Attributes:
        config: with every ``auto`` resolved.
        manifest: without table faults.
        splits: of its labelled cases.
    """

    config: Config
    manifest: Manifest
    splits: Splits

    @property
    def folds(self) -> int | None:
        """Of cross-validation; None where a test split judges."""
        return self.config.training.fold_count

    def describe(self) -> list[str]:
        """Lines on what each split holds, and what to use instead where one holds too few."""
        plan = Plan(self.folds, self.config.training.member_count)
        differences = _truth(self.config, self.manifest)
        return [*describe_plan(labelled_cases(self.manifest), self.splits.of, plan), *differences.lines]


def read_experiment(config_path: Path, overrides: Sequence[str] = (), *, folds: int | None = None) -> Experiment:
    """Read a configuration and its table, resolve every ``auto``, and draw the splits; no scan is opened.

    Args:
        config_path: the configuration.
        overrides: ``section.key=value``.
        folds: of ``--folds``, which overrides ``training.folds``.

    Raises:
        UsageError: for every fault of configuration or table that would stop the training later.
    """
    config, manifest = read_config_and_table(config_path, overrides)
    _require_centers(config_path, config, manifest)
    config = settle_plan(config, manifest, folds=folds)
    findings, seed = config.data.findings, config.data.split_seed
    count = config.training.fold_count
    if count:
        splits = assign_folds(manifest, count, seed=seed)
    else:
        joined = config.training.member_count > 1
        splits = assign_splits(manifest, config.data.splits, seed=seed, joined=joined)
        require_findings_in_splits(manifest, findings, splits.of)
    return Experiment(config, manifest, splits)


def _require_centers(config_path: Path, config: Config, manifest: Manifest) -> None:
    """Refuse lesions without a centre in any row, which every scan would be rejected for."""
    if config.preprocessing.region == "lesion" and all(case.center_mm is None for case in labelled_cases(manifest)):
        raise ConfigError(
            f"{config_path}: preprocessing.region: 'lesion' needs the lesions' centres, and no labelled case of "
            f"{manifest.path} has one: fill in center_x_mm, center_y_mm, center_z_mm and coordinate_system, name "
            "annotations in data.lesions, or take region: image"
        )


def read_config_and_table(config_path: Path, overrides: Sequence[str] = ()) -> tuple[Config, Manifest]:
    """A configuration, and the table that it names, without faults and with every column that is asked for.

    Raises:
        UsageError: at the first fault.
    """
    config = load_config(config_path, overrides)
    for key, table in (("manifest", config.data.manifest), ("extra_columns", config.data.extra_columns)):
        if table is not None and not table.exists():
            raise missing_file(config_path, f"data.{key}", table)
    if (weights := config.network.weights) is not None and not weights.is_file():
        raise missing_file(config_path, "network.weights", weights)
    words = LabelWords(config.data.positive_label, config.data.negative_label) if config.data.positive_label else None
    manifest = read_manifest(config.data.manifest, config.data.extra_columns, words=words)
    if config.data.lesions:
        manifest = _with_lesions(config_path, manifest, config.data.lesions)
    manifest.require_usable()
    require_findings(manifest, config.data.findings)
    if different := _truth(config, manifest).intensities:
        raise ConfigError(f"{config_path}: data.intensities: {different}; correct it, or leave those cases out")
    return resolve_columns(config, manifest), manifest


def _with_lesions(config_path: Path, manifest: Manifest, sources: Sequence[Path]) -> Manifest:
    """The manifest with a case for each lesion that annotation files mark; prints what has no counterpart."""
    from pipeline.cases.inputs import Inputs
    from pipeline.cases.lesions.locate import locate
    from pipeline.cases.lesions.report import report_lines

    missing = [source for source in sources if not source.exists()]
    if missing:
        raise missing_file(config_path, "data.lesions", missing[0])
    inputs = Inputs(
        lambda _: manifest.cases,
        str(manifest.path.absolute()),
        manifest.root,
        len(manifest.cases),
        digest=manifest.digest,
    )
    located = locate(inputs, sources)
    print(*map(one_line, report_lines(located)), sep="\n", file=sys.stderr)
    centers = [[case.case_id, case.center_mm] for case in located.cases]
    return replace(
        manifest,
        cases=located.cases,
        columns=tuple(dict.fromkeys([*manifest.columns, _DIAMETER])),
        digest=sha256_json([manifest.digest, centers]),
    )


def _truth(config: Config, manifest: Manifest) -> TruthDifferences:
    data = config.data
    return truth_differences(
        manifest.facts, label_source=data.label_source, intensities=data.intensities, of="the configuration"
    )


def labelled_cases(manifest: Manifest) -> list[Case]:
    """The cases with a label."""
    return [case for case in manifest.cases if case.label is not None]


def settle_plan(config: Config, manifest: Manifest, *, folds: int | None = None) -> Config:
    """The configuration with ``training.folds`` and ``training.members`` as numbers; ``folds`` wins over the first."""
    cases = labelled_cases(manifest)
    plan = plan_training(cases, folds=folds or config.training.folds, members=config.training.members)
    training = config.training.model_copy(update={"folds": plan.folds, "members": plan.members})
    return config.model_copy(update={"training": training})


def resolve_columns(config: Config, manifest: Manifest) -> Config:
    """The configuration with the diameter as baseline, when it names none and the manifest has it.

    Raises:
        ConfigError: when it names a column that the manifest lacks, with the key and the column.
    """
    settings, soft = config.evaluation, config.training.soft_labels
    named = {f"evaluation.{key}": getattr(settings, key) for key in _COLUMN_KEYS}
    named["training.soft_labels.column"] = (soft.column,) if soft else ()
    named["training.auxiliary.columns"] = tuple(config.training.auxiliary.columns) if config.training.auxiliary else ()
    named["data.covariates"] = tuple(config.data.covariates)
    for key, columns in named.items():
        for column in columns:
            if column in RESERVED_COLUMNS:
                raise ConfigError(f"{key}: {column!r} is one of the manifest's own columns; name another, or remove it")
            if column not in manifest.columns:
                extra_columns = ", ".join(manifest.columns) or "none"
                raise ConfigError(
                    f"{key}: {manifest.path} has no column {column!r} (extra columns: {extra_columns}); "
                    "correct or remove it"
                )
    if settings.baseline_columns or _DIAMETER not in manifest.columns:
        return config
    return config.model_copy(update={"evaluation": settings.model_copy(update={"baseline_columns": (_DIAMETER,)})})
