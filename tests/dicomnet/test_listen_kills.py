"""Kills of listener, receiver, sender and archive at random moments: no result is lost, repeated or half-written."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from io import BytesIO

import pytest
from dicom_network import Cable, Listening, Orthanc, require_programs, running, storescu, wait_until, write_study
from pydicom import dcmread
from tiny_models import write_model


def destinations(one, two):
    """Both archives, each behind a cable."""
    return [
        {"name": "dimse", "kind": "c-store", "address": "127.0.0.1", "port": one.port, "ae_title": "ORTHANC"},
        {"name": "web", "kind": "stow-rs", "url": f"http://127.0.0.1:{two.port}/dicom-web"},
    ]


class Killing:
    """Kills one of the programs again and again, and starts it again, until there were enough kills."""

    def __init__(self, listener, archives, cables, *, kills, seconds, seed):
        self.listener, self.archives, self.cables = listener, archives, cables
        self.kills, self.seconds, self.rng = kills, seconds, random.Random(seed)
        self.done, self.cuts = Counter(), 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while self.done.total() < self.kills:
            time.sleep(self.rng.uniform(0.0, 2 * self.seconds))
            (step,) = self.rng.choices([self.kill_listener, self.kill_child, self.kill_archive, self.cut], [1, 3, 1, 1])
            step()

    def wait_for(self, share):
        """Until this share of the kills is done, so that series come all the while."""
        wait_until(lambda: self.done.total() >= share * self.kills or not self.thread.is_alive(), seconds=600)

    def cut(self):
        cable = self.rng.choice(self.cables)
        cable.cut()
        self.cuts += 1
        time.sleep(self.rng.uniform(0.0, 2.0))
        cable.mend()

    def kill_listener(self):
        self.listener.kill()
        self.done["listener"] += 1
        time.sleep(self.rng.uniform(0.0, 1.0))
        self.listener.start()

    def kill_child(self):
        children = self.listener.children()
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.rng.choice(children), signal.SIGKILL)
            self.done["receiver or sender"] += 1

    def kill_archive(self):
        archive = self.rng.choice(self.archives)
        archive.kill()
        self.done["archive"] += 1
        time.sleep(self.rng.uniform(0.0, 1.0))
        archive.start()


def send_until_taken(listener, study):
    """What an archive does: send again until all was taken."""
    end = time.monotonic() + 300
    while True:
        try:
            if storescu(listener.port, study) == 0:
                return
        except subprocess.TimeoutExpired:
            pass
        assert time.monotonic() < end, listener.log()
        time.sleep(0.3)


def campaign(folder, model, *, series, kills, seconds, seed):
    """Send series while programs are killed; counts of results over all series and both destinations."""
    one, two = Orthanc(folder / "one"), Orthanc(folder / "two")
    cables = Cable(one.dimse), Cable(two.http)
    listener = Listening(
        folder,
        model,
        destinations=destinations(*cables),
        quiet_seconds=4.0,
        limits={"free_gb": 0.1, "idle_seconds": 10.0},
        retry={"first_seconds": 0.2, "longest_seconds": 1.0, "timeout_seconds": 10.0},
    )
    studies = [write_study(folder / f"study{number}", number) for number in range(1, series + 1)]
    with running(one, two, listener):
        killing = Killing(listener, (one, two), cables, kills=kills, seconds=seconds, seed=seed)
        killing.thread.start()
        for number, study in enumerate(studies):
            killing.wait_for(0.95 * number / series)
            send_until_taken(listener, study)
        killing.thread.join()
        assert killing.done.total() == kills, listener.log()
        wait_until(
            lambda: len(listener.results("archive")) >= series and not listener.results("outbox"),
            seconds=120 + 10 * series,
            what=f"every result is delivered ({len(listener.results('archive'))} of {series})",
        )
        assert listener.stop() == 0
        reports = [
            [dcmread(BytesIO(archive.file(instance))) for instance in archive.instances("SR")] for archive in (one, two)
        ]
    lost = repeated = broken = 0
    for received in reports:
        counts = Counter(report.PatientID for report in received)
        broken += sum("ContentSequence" not in report or "111047" not in str(report) for report in received)
        for number in range(1, series + 1):
            lost += counts[f"CANARY-ID-{number}"] == 0
            repeated += max(0, counts[f"CANARY-ID-{number}"] - 1)
    figures = {"lost": lost, "repeated": repeated, "half-written": broken}
    print(f"{series} series, kills {dict(killing.done)}, cuts {killing.cuts}: {figures}")
    assert not listener.results("errors")
    return figures


@pytest.mark.slow
def test_five_kills_lose_and_repeat_nothing(tmp_path):
    require_programs("Orthanc", "storescu")
    model = write_model(tmp_path / "model")
    figures = campaign(tmp_path, model, series=4, kills=5, seconds=4.0, seed=1)
    assert set(figures.values()) == {0}


@pytest.mark.campaign
def test_two_hundred_kills_lose_and_repeat_nothing(tmp_path):
    require_programs("Orthanc", "storescu")
    model = write_model(tmp_path / "model")
    figures = campaign(tmp_path, model, series=100, kills=200, seconds=3.0, seed=2)
    assert set(figures.values()) == {0}
