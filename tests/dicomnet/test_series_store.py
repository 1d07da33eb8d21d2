"""When a study has come to rest."""

from __future__ import annotations

import pytest

from pipeline.dicomnet.listening.listener_folder import ListenerFolder
from pipeline.dicomnet.listening.series_store import SeriesStore


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def folder(tmp_path):
    made = ListenerFolder(tmp_path)
    made.make()
    return made


@pytest.fixture
def clock():
    return Clock()


def arrive(folder, study, series, *names):
    place = folder.received / study / series
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / f"{name}.dcm").write_bytes(b"x")


def due(store):
    return [files.study for files in store.due()]


def test_study_is_due_when_nothing_has_come_for_the_quiet_time(folder, clock):
    store = SeriesStore(folder, 30.0, clock=clock)
    arrive(folder, "s", "one", "a")
    assert due(store) == []
    clock.now += 29
    arrive(folder, "s", "two", "b")
    assert due(store) == []
    clock.now += 29
    assert due(store) == []
    clock.now += 1
    (files,) = store.due()
    assert files.series == {"one": ("a.dcm",), "two": ("b.dcm",)}


def test_evaluated_study_is_due_again_only_when_something_is_added(folder, clock):
    store = SeriesStore(folder, 30.0, clock=clock)
    arrive(folder, "s", "one", "a")
    store.due()
    clock.now += 30
    (files,) = store.due()
    store.mark_evaluated(files)
    clock.now += 1000
    assert due(store) == []
    assert due(SeriesStore(folder, 0.0, clock=clock)) == []
    arrive(folder, "s", "one", "b")
    assert due(store) == []
    clock.now += 30
    assert due(store) == ["s"]


def test_quiet_time_begins_anew_with_the_program(folder, clock):
    arrive(folder, "s", "one", "a")
    store = SeriesStore(folder, 30.0, clock=clock)
    assert due(store) == []
    clock.now += 30
    assert due(store) == ["s"]


def test_study_that_is_called_complete_is_due_after_a_second(folder, clock):
    store = SeriesStore(folder, 30.0, clock=clock)
    arrive(folder, "s", "one", "a")
    assert due(store) == []
    assert store.mark_complete("s")
    clock.now += 1
    (files,) = store.due()
    store.mark_evaluated(files)
    assert due(store) == []
    arrive(folder, "s", "one", "b")
    store.due()
    clock.now += 1
    assert due(store) == []
    assert not store.mark_complete("unknown")


def test_change_during_the_scoring_is_noticed(folder, clock):
    store = SeriesStore(folder, 0.0, clock=clock)
    arrive(folder, "s", "one", "a")
    (files,) = store.due()
    assert store.unchanged(files)
    arrive(folder, "s", "one", "b")
    assert not store.unchanged(files)


def test_damaged_mark_has_the_study_evaluated_again(folder, clock):
    arrive(folder, "s", "one", "a")
    (folder.received / "s" / "evaluated.json").write_text("{")
    assert due(SeriesStore(folder, 0.0, clock=clock)) == ["s"]
