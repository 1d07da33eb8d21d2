"""``malignancy search``: find the settings that do best on the validation split; no other held-out case is read."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from pipeline.cases.findings import training_alone
from pipeline.cases.manifest import Manifest
from pipeline.cases.splits import assign_splits
from pipeline.config.experiment import Config
from pipeline.config.file import load_config
from pipeline.config.search import Range, Search
from pipeline.console import table_text
from pipeline.errors import ConfigError, UnfinishedError
from pipeline.extras import require_extra
from pipeline.files import sha256_json, write_csv
from pipeline.redaction import redact
from pipeline.tracking.runs import TrackedRun, open_run
from pipeline.training.fit import fit
from pipeline.workflow.cohort import Cohort, prepare_cohort, require_classes_in_splits
from pipeline.workflow.learning.experiment import read_config_and_table
from pipeline.workflow.learning.learn import case_tensors
from pipeline.workflow.learning.provenance import public_config

if TYPE_CHECKING:
    import optuna

_SPLITS = ("train", "validation")
_SHOWN = 5


@dataclass(frozen=True)
class SearchResult:
    """Results of a study's trials so far.

    Attributes:
        study: name of the study; another run of the same question goes on with it.
        best: values by dotted key of the best trial.
        value: of the monitored quantity, of the best trial.
        summary: what the command prints.
    """

    study: str
    best: Mapping[str, Any]
    value: float
    summary: str


def search(config_path: Path, overrides: Sequence[str] = ()) -> SearchResult:
    """Try settings until the study has its trials; running it again, or several times at once, continues the study.

    The study is a journal in ``output``, one for each configuration, data and ranges. Each trial is a run below this
    command's run in MLflow, and none is registered.

    Raises:
        ConfigError: without ranges, or when one of their ends is not accepted.
        UnfinishedError: when every trial failed.
    """
    config, manifest = read_config_and_table(config_path, overrides)
    settings = config.search
    if settings is None:
        raise ConfigError(f"{config_path}: search: is null; declare search.ranges, as configs/smoke.yaml does")
    _require_valid_ranges(config_path, overrides, settings)
    cohort = _read_cases(config, manifest)
    study = _open_study(config, cohort, manifest)
    started = datetime.now(UTC)
    name = f"{config.name} search {started:%Y-%m-%d %H:%M}"
    with open_run(config.tracking, name=name, tags={"kind": "search", "study": study.study_name}) as run:
        run.params(public_config(config))
        _optimize(study, _Objective(config_path, tuple(overrides), config, settings, cohort, run, name))
        finished = _finished(study)
        if not finished:
            raise UnfinishedError(
                "search: every trial failed, as its run in MLflow says; narrow search.ranges, the learning rate first"
            )
        run.metrics({f"best_{_monitor(config)}": finished[0].values[0]})
        with tempfile.TemporaryDirectory() as folder:
            run.artifact(_write_trials(study, Path(folder)))
    best = {key: finished[0].params[key] for key in settings.ranges}
    command = shlex.join(["malignancy", "train", str(config_path), *overrides, *_as_overrides(best)])
    lines = [
        _table_text(study, finished, config, settings),
        "the best of many tries on one validation split looks better than it is; the test split was not read",
        f"train it with: {redact(command)}",
    ]
    return SearchResult(study.study_name, best, finished[0].values[0], "\n".join(lines))


@dataclass(frozen=True)
class _Objective:
    """One trial: the mean over seeds of the monitored quantity at each training's best epoch."""

    config_path: Path
    overrides: tuple[str, ...]
    config: Config
    settings: Search
    cohort: Cohort
    run: TrackedRun
    name: str

    def __call__(self, trial: optuna.Trial) -> float:
        chosen = {key: _suggest(trial, key, span) for key, span in self.settings.ranges.items()}
        config = load_config(self.config_path, [*self.overrides, *_as_overrides(chosen)])
        tags = {"kind": "trial", "mlflow.parentRunId": self.run.run_id, "trial": str(trial.number)}
        values = []
        with open_run(config.tracking, name=f"{self.name}, trial {trial.number}", tags=tags) as child:
            child.params(chosen)
            for number, seed in enumerate(self.settings.seeds):
                seeded = config.model_copy(update={"seed": seed})
                watch = trial if self.settings.prune and number == 0 else None
                values.append(self._fit(seeded, _Reporter(child, watch, _monitor(config))))
            child.metrics({"mean": float(np.mean(values)), "spread": float(np.std(values))})
        trial.set_user_attr("values", values)
        return float(np.mean(values))

    def _fit(self, config: Config, reporter: _Reporter) -> float:
        train, validation = (case_tensors(self.cohort, split, config) for split in _SPLITS)
        with tempfile.TemporaryDirectory() as folder:
            fitted = fit(train, validation, config, folder=Path(folder), tracker=reporter)
        return fitted.validation[_monitor(config)]


@dataclass(frozen=True)
class _Reporter:
    """A tracker that also lets the study stop a trial that lags behind."""

    run: TrackedRun
    trial: optuna.Trial | None
    monitor: str

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Record the numbers of one epoch.

        Raises:
            optuna.TrialPruned: when the trial is not worth going on with.
        """
        import optuna

        self.run.metrics(values, step=step)
        if self.trial is None or self.monitor not in values:
            return
        self.trial.report(values[self.monitor], step)
        if self.trial.should_prune():
            self.run.tags({"pruned": f"at epoch {step}"})
            raise optuna.TrialPruned


def _open_study(config: Config, cohort: Cohort, manifest: Manifest) -> optuna.Study:
    """Open or create the study of these settings and data in the journal; safe for several processes at once."""
    require_extra("search", "malignancy search", "optuna")
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = config.output / f"{config.name}-search"
    folder.mkdir(parents=True, exist_ok=True)
    without = {"search": {"ranges", "seeds"}}
    settings = config.model_dump(mode="json", exclude={"search", "output", "tracking"})
    settings["search"] = config.model_dump(mode="json", include=without)["search"]
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "study.journal"))),
        study_name=sha256_json([settings, cohort.digest(manifest)])[:16],
        direction="maximize" if _monitor(config) == "validation_auroc" else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=config.training.max_epochs // 4),
        load_if_exists=True,
    )
    # A seed of its own for each process that joins: two with one seed would try the same settings.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials), constant_liar=True)
    return study


def _optimize(study: optuna.Study, objective: _Objective) -> None:
    import optuna
    from optuna.study import MaxTrialsCallback

    settings = objective.settings
    done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL)
    left = settings.trials - sum(trial.state in done for trial in study.trials)
    if left > 0:
        enough = MaxTrialsCallback(settings.trials, states=done)
        study.optimize(objective, n_trials=left, callbacks=[enough], catch=(UnfinishedError,))


def _suggest(trial: optuna.Trial, key: str, span: Range) -> Any:
    if span.choices is not None:
        return trial.suggest_categorical(key, span.choices)
    low, high = span.low or 0.0, span.high or 0.0
    if span.integer:
        return trial.suggest_int(key, int(low), int(high), log=span.log)
    return trial.suggest_float(key, low, high, log=span.log)


def _require_valid_ranges(config_path: Path, overrides: Sequence[str], settings: Search) -> None:
    """Check at the start that the configuration accepts the ends of the ranges."""
    for key, span in settings.ranges.items():
        for value in span.choices or (span.low, span.high):
            plain = int(value) if span.integer and value is not None else value
            load_config(config_path, [*overrides, *_as_overrides({key: plain})])


def _as_overrides(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={'null' if value is None else value}" for key, value in values.items()]


def _read_cases(config: Config, manifest: Manifest) -> Cohort:
    """The experiment with only the cases that a search may use; the other splits' scans are not opened."""
    splits = assign_splits(manifest, config.data.splits, seed=config.data.split_seed)
    seen = [case for case in manifest.cases if splits.of.get(case.case_id) in _SPLITS]
    seen += training_alone(manifest.cases, config.data.findings, splits.of)
    cohort = prepare_cohort(replace(manifest, cases=tuple(seen)), splits.of, config)
    require_classes_in_splits(cohort, manifest, config.data.findings, splits=_SPLITS)
    return cohort


def _monitor(config: Config) -> str:
    stop = config.training.early_stopping
    return f"validation_{stop.monitor if stop else 'log_loss'}"


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Complete trials, best first."""
    from optuna.trial import TrialState

    complete = study.get_trials(states=(TrialState.COMPLETE,))
    sign = 1 if study.direction.name == "MINIMIZE" else -1
    return sorted(complete, key=lambda trial: sign * trial.values[0])


def _write_trials(study: optuna.Study, folder: Path) -> Path:
    keys = sorted({key for trial in study.trials for key in trial.params})
    path = folder / "trials.csv"
    rows = [
        [trial.number, trial.state.name.lower(), trial.value, *(trial.params.get(key) for key in keys)]
        for trial in study.trials
    ]
    write_csv(path, ["trial", "state", "value", *keys], rows)
    return path


def _table_text(
    study: optuna.Study, finished: Sequence[optuna.trial.FrozenTrial], config: Config, settings: Search
) -> str:
    """The best trials as a table."""
    states = [trial.state.name.lower() for trial in study.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    seeds = len(settings.seeds)
    title = (
        f"{config.name}: {len(states)} trials ({counts}); {_monitor(config)}, mean of {seeds} seed{'s'[: seeds > 1]}"
    )
    table = Table("trial", "value", "spread over seeds", *settings.ranges, title=title, title_justify="left")
    for trial in finished[:_SHOWN]:
        spread = f"{np.std(trial.user_attrs['values']):.4f}" if seeds > 1 else "one seed"
        cells = [_text(trial.params[key]) for key in settings.ranges]
        table.add_row(str(trial.number), f"{trial.value:.4f}", spread, *cells)
    return table_text(table, width=140)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
