"""Registry access of the promotion gate: versions, anchor, decisions, the champion."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError, UsageError
from pipeline.redaction import redact
from pipeline.tracking.faults import store_faults, store_reason
from pipeline.tracking.registry import ANCHOR, CHAMPION, RegisteredVersion, no_champion
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd

GATE_EXPERIMENT = "malignancy-gate"
_PREVIOUS = "gate.previous_champion"
_SECTION = "\n\n---\n"  # between the training's text and the gate's latest decision
_LIMIT = 4900  # characters of a tag or description that every backend stores (PostgreSQL refuses above 5,000)
_URI = re.compile(r"^models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))$")


@dataclass(frozen=True)
class Rollback:
    """A champion that gave way to the version before it.

    Attributes:
        restored: champion again.
        stepped_down: the champion until now.
    """

    restored: RegisteredVersion
    stepped_down: RegisteredVersion

    def __str__(self) -> str:
        return f"{self.restored} is champion again; {self.stepped_down} steps down"


def find_version(store: Store, model: str) -> RegisteredVersion:
    """The model version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names.

    Raises:
        UsageError: when ``model`` names no version.
        ModelError: when there is no such version.
    """
    parts = _URI.match(model)
    if parts is None:
        raise UsageError(
            f"{model}: is not a registered version; expected models:/NAME@challenger or models:/NAME/VERSION"
        )
    name = parts["name"]
    try:
        if parts["alias"]:
            registered = store.client.get_model_version_by_alias(name, parts["alias"])
        else:
            registered = store.client.get_model_version(name, parts["version"])
    except store_faults() as error:
        if parts["alias"] == CHAMPION and _has_versions(store, name):
            raise ModelError(f"{model}: {no_champion(name)}") from None
        raise ModelError(
            f"{model}: no such version in {store.shown} ({store_reason(error)}); `malignancy ui` lists them"
        ) from None
    return RegisteredVersion(name, str(registered.version), str(registered.run_id))


def _has_versions(store: Store, name: str) -> bool:
    try:
        return bool(store.client.search_model_versions(f"name = '{name}'", max_results=1))
    except store_faults():
        return False


def registered_name(model: str) -> str | None:
    """The registered model that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names; None of anything else."""
    parts = _URI.match(model)
    return parts["name"] if parts else None


def find_anchor(store: Store, name: str) -> RegisteredVersion | str:
    """The fixed version that every challenger of a name is compared with, or why there is none.

    It is the one with the alias ``anchor``: the first champion gets it and keeps it until a person gives it to another.
    A name whose first champion was made before there were anchors has its version 1.
    """
    number = store.client.get_registered_model(name).aliases.get(ANCHOR)
    try:
        return find_version(store, f"models:/{name}/{number or 1}")
    except ModelError:
        lost = f"version {number}, the anchor of {name}," if number else f"version 1, the first champion of {name},"
        return f"{lost} was deleted"


def set_anchor(store: Store, version: RegisteredVersion, *, reason: str, at: str) -> None:
    """Make a version the anchor; reason, time and the anchor before are noted on it."""
    before = find_anchor(store, version.name)
    tags = {"gate.anchor_because": reason, "gate.anchor_since": at, "gate.anchor_before": str(before)}
    for name, value in tags.items():
        store.client.set_model_version_tag(version.name, version.version, name, redact(value)[:_LIMIT])
    store.client.set_registered_model_alias(version.name, ANCHOR, version.version)


def write_decision(store: Store, version: RegisteredVersion, *, tags: Mapping[str, str], text: str) -> None:
    """Write the gate's decision to a version: tags, and the description below what training wrote."""
    client = store.client
    for name, value in tags.items():
        client.set_model_version_tag(version.name, version.version, name, value[:_LIMIT])
    described = client.get_model_version(version.name, version.version).description or ""
    before = described.split(_SECTION, 1)[0]
    room = max(_LIMIT - len(text) - len(_SECTION), 0)
    client.update_model_version(version.name, version.version, (before[:room] + _SECTION + text)[:_LIMIT])


def move_champion(store: Store, version: RegisteredVersion, *, from_version: RegisteredVersion) -> None:
    """Make a version the champion, remembering which one it replaces.

    The reference to the old one is written first, so that an interruption leaves the old champion in place.
    """
    client = store.client
    client.set_model_version_tag(version.name, version.version, _PREVIOUS, from_version.version)
    client.set_registered_model_alias(version.name, CHAMPION, version.version)


def restore_champion(store: Store, name: str, *, at: str) -> Rollback:
    """Give ``champion`` back to the version that the present one replaced.

    Args:
        store: open.
        name: of the registered model.
        at: time, noted on the version that steps down.

    Raises:
        ModelError: when there is no such model, or the version before is gone.
        UsageError: when the champion replaced none.
    """
    champion = find_version(store, f"models:/{name}@{CHAMPION}")
    tags = store.client.get_model_version(name, champion.version).tags
    if _PREVIOUS not in tags:
        raise UsageError(
            f"{champion}: replaced no champion, so there is nothing to go back to; promote another version"
        )
    restored = find_version(store, f"models:/{name}/{tags[_PREVIOUS]}")
    store.client.set_registered_model_alias(name, CHAMPION, restored.version)
    store.client.set_model_version_tag(
        name, champion.version, "gate.rolled_back", f"{at}, to version {tags[_PREVIOUS]}"
    )
    # So that a second rollback goes further back, and does not undo the first.
    store.client.delete_model_version_tag(name, champion.version, _PREVIOUS)
    return Rollback(restored, stepped_down=champion)


def registered_probabilities(version: RegisteredVersion, cases: pd.DataFrame, *, root: Path) -> NDArray[np.float64]:
    """Probabilities from the registered MLflow model itself, shape (n,); NaN where it gives none.

    Args:
        version: which model.
        cases: rows of manifest columns.
        root: folder that images lie under.

    Raises:
        ModelError: when it cannot be loaded or fails.
    """
    import mlflow

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # hints about package versions
            model = mlflow.pyfunc.load_model(version.uri, model_config={"root": str(root)})
            answered: Any = model.predict(cases)
        return np.asarray(answered["probability"], dtype=np.float64)
    except Exception as error:  # a stored model may fail in any way
        raise ModelError(f"{version.uri}: its MLflow model fails ({type(error).__name__})") from error
