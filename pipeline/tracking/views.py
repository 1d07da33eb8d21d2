"""Pages of the MLflow UI for a reviewer: the headline metrics as columns, and a comparison, each at an address.

MLflow's UI takes experiments for GenAI work unless the address (or the browser's storage) states otherwise, and shows
no metric. The view can be stored in a tag of the experiment, as its own button "Share" does.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline.tracking.faults import store_faults
from pipeline.tracking.registry import CHALLENGER, CHAMPION
from pipeline.tracking.store import Store

HEADLINE = (
    "auroc",
    "auroc_lower",
    "auroc_upper",
    "sensitivity",
    "specificity",
    "brier_score",
    "calibration_slope",
    "calibration_intercept",
    "ece",
    "auroc_gain_over_champion",
)
"""Metrics of a run that a reviewer decides by, with ``test_`` before them; ``evaluation.json`` has all others."""
PREFIX = "test_"
_TEST_COLUMNS = tuple(PREFIX + name for name in HEADLINE)
_COLUMNS = {  # of runs that judge no model on a test split, by their tag "kind"
    "scoring": ("cases", "scored", "flagged", "rejected", "failed", "unscored_share", "drift_probability"),
    "gate": ("challenger_auroc", "champion_auroc", "auroc_gain", "auroc_gain_lower", "auroc_gain_upper"),
}
_HEADLINE = "headline"
_SHARED = "mlflow.sharedViewState."
_CHARTS = "&compareRunsMode=CHART"
_MODEL_TRAINING = "workflowType=machine_learning"
_LIMIT = 20  # experiments whose address is printed


@dataclass(frozen=True)
class View:
    """A prepared page.

    Attributes:
        title: what it shows.
        fragment: what follows the server's address.
    """

    title: str
    fragment: str


def prepare_views(store: Store) -> tuple[View, ...]:
    """Prepare the pages of each experiment with runs, trainings first, and of each model that has a challenger.

    An experiment whose tags cannot be written is shown all the same, with the columns that MLflow chooses.
    """
    trainings: list[View] = []
    others: list[View] = []
    for experiment in store.client.search_experiments(order_by=["last_update_time DESC"], max_results=_LIMIT):
        newest = store.client.search_runs([experiment.experiment_id], max_results=1)
        if not newest:
            continue
        kind = newest[0].data.tags.get("kind", "training")
        prepare_experiment(store, experiment.experiment_id, kind=kind)
        page = _page(experiment.experiment_id, _HEADLINE)
        pages = [View(f"runs of {experiment.name}", page), View(f"charts of {experiment.name}", f"{page}{_CHARTS}")]
        (others if kind in _COLUMNS else trainings).extend(pages)
    return (*trainings, *_comparisons(store), *others)


def prepare_experiment(store: Store, experiment: str, *, kind: str) -> None:
    """Store the view of an experiment in its tags; where the store takes none, the UI shows its default.

    Args:
        store: open.
        experiment: its id.
        kind: of its runs, as in their tag.
    """
    with suppress(*store_faults()):
        _keep(store, experiment, "mlflow.experimentKind", "custom_model_development")
        _keep(store, experiment, f"{_SHARED}{_HEADLINE}", _state(_COLUMNS.get(kind, _TEST_COLUMNS)))


def _keep(store: Store, experiment: str, name: str, value: str) -> None:
    if store.client.get_experiment(experiment).tags.get(name) != value:
        store.client.set_experiment_tag(experiment, name, value)


def _page(experiment: str, key: str) -> str:
    return f"/#/experiments/{experiment}/runs?{_MODEL_TRAINING}&viewStateShareKey={key}"


def _state(metrics: Sequence[str], search: str = "") -> str:
    """The state of an experiment's page, as its button "Share" keeps it."""
    columns = [f"metrics.`{name}`" for name in metrics]
    bar = {"type": "BAR", "metricSectionId": _HEADLINE, "deleted": False, "isGenerated": False}
    state = {
        "searchFilter": search,
        "orderByKey": columns[0],
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "compareRunCharts": [{**bar, "uuid": name, "metricKey": name} for name in metrics],
        "compareRunSections": [{"uuid": _HEADLINE, "name": "Headline", "display": True, "isReordered": False}],
        "isAccordionReordered": True,
    }
    return json.dumps(state)


def _comparisons(store: Store) -> list[View]:
    """The runs of champion and challenger of each registered model, side by side."""
    views = []
    for model in store.client.search_registered_models(max_results=_LIMIT):
        champion, challenger = (model.aliases.get(alias) for alias in (CHAMPION, CHALLENGER))
        if champion is None or challenger is None or champion == challenger:
            continue
        with suppress(*store_faults()):  # a version whose run was deleted for good has nothing to show
            runs = [str(store.client.get_model_version(model.name, number).run_id) for number in (champion, challenger)]
            experiments = {str(store.client.get_run(run).info.experiment_id) for run in runs}
            title = f"{model.name}: champion (version {champion}) beside challenger (version {challenger})"
            views.append(View(title, _comparison(store, model.name, runs, sorted(experiments))))
    return views


def _comparison(store: Store, name: str, runs: Sequence[str], experiments: Sequence[str]) -> str:
    if len(experiments) > 1:  # a page of an experiment shows its own runs alone
        query = urllib.parse.urlencode({"runs": json.dumps(runs), "experiments": json.dumps(experiments)})
        return f"/#/compare-runs?{query}&{_MODEL_TRAINING}"
    key = f"champion-of-{name}"
    chosen = ", ".join(f"'{run}'" for run in runs)
    _keep(store, experiments[0], f"{_SHARED}{key}", _state(_TEST_COLUMNS, f"attributes.run_id IN ({chosen})"))
    return f"{_page(experiments[0], key)}{_CHARTS}"
