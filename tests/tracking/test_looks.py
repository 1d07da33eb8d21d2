"""Which looks count for a set of patients."""

from pathlib import Path

import pytest

from pipeline.config.experiment import Tracking
from pipeline.tracking.looks import EarlierLooks, LookedAt, earlier_looks, mark_look
from pipeline.tracking.runs import open_run
from pipeline.tracking.store import experiment_id, open_store

CONFIG = Tracking(experiment="gate")


@pytest.fixture
def take_look(project):
    """Mark a look at some patients and images; returns the run's id."""

    def look(patients, images=(), name="m"):
        with open_run(CONFIG, name="gate", tags={"model_version": f"models:/{name}/3"}) as run:
            mark_look(run, name, patients=patients, images=images)
            return run.run_id

    return look


def count(patients, images=(), name="m", **settings):
    store = open_store(CONFIG)
    return earlier_looks(store, experiment_id(store, CONFIG), name, patients=patients, images=images, **settings)


def test_one_shared_patient_in_any_spelling_or_one_image_is_enough(take_look):
    take_look(["007", "b"], ["i1", "i2"])
    assert count(["7", "x", "y"]) == EarlierLooks(1, 0, frozenset({"7"}))
    assert count(["x"], ["i2"]) == EarlierLooks(1, 0, frozenset())
    assert count(["x"], ["i3"]) == EarlierLooks(0, 0, frozenset())
    take_look(["b", "c"])
    assert count(["b", "c"]) == EarlierLooks(2, 0, frozenset({"b", "c"}))
    assert count(["c"]).count == 1


def test_looks_of_another_name_and_ones_own_do_not_count(take_look):
    mine = take_look(["a"])
    take_look(["a"], name="other")
    assert count(["a"]).count == 1
    assert count(["a"], besides=mine).count == 0
    assert count(["a"], name="other").count == 1


def test_deleted_runs_and_looks_without_a_record_count(take_look):
    run_id = take_look(["a"])
    store = open_store(CONFIG)
    store.client.delete_run(run_id)
    assert count(["a"]).count == 1
    Path(store.client.get_run(run_id).info.artifact_uri.removeprefix("file://"), "looked_at.json").unlink()
    assert count(["x"]) == EarlierLooks(1, 1, frozenset())


def test_looks_of_before_there_were_records_count(project):
    with open_run(CONFIG, name="gate", tags={"model_version": "models:/m/3", "gate.look": "yes"}):
        pass
    assert count(["x"]) == EarlierLooks(1, 1, frozenset())
    assert count(["x"], name="other").count == 0


def test_a_damaged_record_counts(take_look):
    run_id = take_look(["a"])
    run = open_store(CONFIG).client.get_run(run_id)
    path = Path(run.info.artifact_uri.removeprefix("file://"), "looked_at.json")
    for text in ('{"salt": 1}', "{", '{"salt": "s", "patients": [], "images": [], "more": 1}'):
        path.write_text(text)
        assert count(["x"]) == EarlierLooks(1, 1, frozenset())


def test_records_have_salts_of_their_own():
    first, second = (LookedAt.of(["a"], ["i"]) for _ in range(2))
    assert first.salt != second.salt
    assert set(first.patients).isdisjoint(second.patients)
    assert "a" not in first.patients
    assert first.shared(["a", "i", "z"]) == second.shared(["z", "i", "a"]) == {"a", "i"}
