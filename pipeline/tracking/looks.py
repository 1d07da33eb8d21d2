"""Looks at locked cases: each comparison by the gate records salted hashes of its patients, and counts as a look.

A look counts for another of the same registered model when they share a patient or an image, whatever else differs:
rows that are added or dropped, their order, other columns, the file's name, or the spelling of ids.
"""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.config.inputs import Section
from pipeline.scoring.model_description import hash_id
from pipeline.tracking.faults import store_faults
from pipeline.tracking.runs import TrackedRun
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

_LOOK, _NAME, _VERSION = "gate.look", "gate.model_name", "model_version"
_FILE = "looked_at.json"


class LookedAt(Section):
    """Salted hashes of the patients and images of one look; every look has a salt of its own."""

    salt: str
    patients: tuple[str, ...]
    images: tuple[str, ...]

    @classmethod
    def of(cls, patients: Iterable[str], images: Iterable[str]) -> LookedAt:
        """Hash ids of patients, in whatever spelling, and digests of images."""
        salt = secrets.token_hex(16)
        hashed = [
            tuple(sorted({hash_id(salt, patient_or_image) for patient_or_image in ids})) for ids in (patients, images)
        ]
        return cls(salt=salt, patients=hashed[0], images=hashed[1])

    def shared(self, ids: Iterable[str]) -> set[str]:
        """Those of the given patient ids or image digests that were part of the look."""
        known = {*self.patients, *self.images}
        return {patient_or_image for patient_or_image in ids if hash_id(self.salt, patient_or_image) in known}


@dataclass(frozen=True)
class EarlierLooks:
    """Looks of a registered model that count for a set of patients.

    Attributes:
        count: looks that share a patient or an image with it, or whose patients are not known any more.
        unknown: of them, those whose patients are not known.
        patients: of the set, those who were in one of these looks.
    """

    count: int
    unknown: int
    patients: frozenset[str]


def earlier_looks(
    store: Store,
    experiment: str,
    name: str,
    *,
    patients: Iterable[str],
    images: Iterable[str] = (),
    besides: str | None = None,
) -> EarlierLooks:
    """Looks that count for these patients, those of deleted runs too.

    Args:
        store: open.
        experiment: of the gate's runs.
        name: registered model.
        patients: ids of those to be judged on.
        images: SHA-256 of their images, as far as they are known: a patient under another id is known by them.
        besides: id of the asking run, which is not counted.
    """
    wanted_patients, digests = set(patients), set(images)
    count, unknown, shared = 0, 0, set[str]()
    for run in _look_runs(store, experiment):
        if run.info.run_id == besides or _name_of(run) != name:
            continue
        looked = _looked_at(run)
        if looked is None:  # removing the record must not undo the look
            count, unknown = count + 1, unknown + 1
            continue
        known = looked.shared(wanted_patients)
        shared |= known
        count += bool(known or looked.shared(digests))
    return EarlierLooks(count, unknown, frozenset(shared))


def mark_look(run: TrackedRun, name: str, *, patients: Iterable[str], images: Iterable[str]) -> None:
    """Count a look before it is taken, so that one that crashes counts too."""
    run.json(LookedAt.of(patients, images).model_dump(mode="json"), _FILE)
    run.tags({_LOOK: "yes", _NAME: name})


def _look_runs(store: Store, experiment: str) -> Iterator[Run]:
    from mlflow.entities import ViewType

    token = None
    while True:
        page = store.client.search_runs(
            [experiment], f"tags.`{_LOOK}` = 'yes'", run_view_type=ViewType.ALL, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _name_of(run: Run) -> str:
    """Registered model of a look; the earliest looks name the version alone."""
    tags = run.data.tags
    return str(tags.get(_NAME) or tags.get(_VERSION, "").removeprefix("models:/").rsplit("/", 1)[0])


def _looked_at(run: Run) -> LookedAt | None:
    """Patients and images of a look; None when its record is gone, damaged, or was never made."""
    import mlflow.artifacts

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar of its own
            value: Any = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/{_FILE}")
    except store_faults():
        return None
    try:
        return LookedAt.model_validate(value, strict=False)
    except ValidationError:
        return None
