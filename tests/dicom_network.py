"""A real Orthanc, dcmtk's programs and the listener as processes, for tests of what goes over the network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml
from dicom_writing import ALL, ct_slice, phantom, save

ROOT = Path(__file__).parents[1]
ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGINS = Path("/usr/share/orthanc/plugins")
CENTER_LPS = (-16.5 + 1.5 * 10.5, -13.5 + 1.25 * 8.5, -16.0 + 2.0 * 7.0)  # of the phantom's bright block


def require_programs(*names: str) -> None:
    """Skip where a program is missing."""
    for name in names:
        if shutil.which(name) is None and not (name == "Orthanc" and Path(ORTHANC).exists()):
            pytest.skip(f"{name} is not installed (Debian: orthanc orthanc-dicomweb dcmtk)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, *, seconds: float = 60.0, what: str = ""):
    """The condition's value as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what or condition}")


class Program:
    """A process that can be killed and started again."""

    def __init__(self, command, folder: Path, name: str, environment=None):
        self.command, self.folder, self.name = command, folder, name
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        return self

    def kill(self, number=signal.SIGKILL):
        """End this one process and wait for its end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(timeout=60)

    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(errors="replace")


class Orthanc(Program):
    """An Orthanc with its own storage, on free ports."""

    def __init__(self, folder: Path, **settings):
        self.http, self.dimse = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http}"
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "Name": "TEST",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.http,
            "DicomPort": self.dimse,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": True,
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
            "SynchronousCMove": False,
            "StableAge": 1,
            "SyncStorageArea": True,
            **settings,
        }
        (folder / "orthanc.json").write_text(json.dumps(config))
        super().__init__([ORTHANC, str(folder / "orthanc.json")], folder, "orthanc")

    def is_up(self) -> bool:
        try:
            return requests.get(f"{self.url}/system", timeout=5).ok
        except requests.RequestException:
            return False

    def start(self):
        super().start()
        wait_until(self.is_up, what="Orthanc answers")
        return self

    def instances(self, modality: str) -> list[str]:
        """Ids of the instances of a modality."""
        query = {"Level": "Instance", "Query": {"Modality": modality}, "Expand": False}
        return requests.post(f"{self.url}/tools/find", json=query, timeout=30).json()

    def file(self, instance: str) -> bytes:
        return requests.get(f"{self.url}/instances/{instance}/file", timeout=30).content


class Listening(Program):
    """``malignancy listen`` as a process."""

    def __init__(self, folder: Path, model: Path, **settings):
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "listen"
        config = {
            "folder": "listen",
            "port": self.port,
            "calling_ae_titles": ["STORESCU", "ORTHANC"],
            "quiet_seconds": 2.0,
            "retry": {"first_seconds": 0.5, "longest_seconds": 2.0, "timeout_seconds": 10.0},
            "limits": {"free_gb": 0.1},
            **settings,
        }
        (folder / "listen.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "pipeline", "listen", str(model), "--config", "listen.yaml", "--workers", "1"]
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        super().__init__(command, folder, "listener", environment)

    def start(self):
        ready = self.log().count("listening as") if (self.folder / "listener.log").exists() else 0
        super().start()
        wait_until(
            lambda: self.log().count("listening as") > ready or self.process.poll() is not None,
            seconds=120,
            what="the listener is ready",
        )
        assert self.process.poll() is None, self.log()
        return self

    def stop(self) -> int:
        self.kill(signal.SIGTERM)
        return self.process.returncode

    def children(self) -> list[int]:
        """Process ids of the receiver and the sender: the children that were spawned, not forked."""
        import psutil

        spawned = []
        with contextlib.suppress(psutil.Error):  # the listener is dead
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.Error):  # this one is
                    spawned += [child.pid] * ("spawn_main" in " ".join(child.cmdline()))
        return spawned

    def audit(self) -> list[dict]:
        lines = [line for path in sorted((self.data / "audit").glob("*.jsonl")) for line in path.open()]
        return [json.loads(line) for line in lines]

    def results(self, place: str) -> list[Path]:
        return sorted(path for path in (self.data / place).iterdir() if not path.name.startswith("."))


class Cable:
    """Forwards TCP connections to a port, until it is cut: then every connection breaks, and none is made."""

    def __init__(self, port: int):
        self.target = port
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.is_cut = False
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        self.is_cut = True
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
                connection.close()
        self.connections.clear()

    def mend(self):
        self.is_cut = False

    def _accept(self):
        while True:
            client, _ = self.server.accept()
            try:
                if self.is_cut:
                    raise OSError("cut")
                server = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            except OSError:
                client.close()
                continue
            self.connections += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for side in (source, target):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


@contextmanager
def running(*programs: Program):
    """Started in order; killed at the end."""
    try:
        for program in programs:
            program.start()
        yield
    finally:
        for program in reversed(programs):
            program.kill()


def write_study(folder: Path, number: int, *, slices=range(16), seed: int | None = None, marked: bool = True) -> Path:
    """A study of one CT series, with a report that marks the phantom's block as a lesion."""
    study, series, frame = f"1.2.826.0.1.{number}.2", f"1.2.826.0.1.{number}.1", f"1.2.826.0.1.{number}.3"
    values = phantom().copy()
    if seed is not None:
        values[ALL] = values + seed % 50
    folder.mkdir(parents=True, exist_ok=True)
    for place in slices:
        image = ct_slice(place, values)
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{series}.{place + 1}"
        image.PatientID, image.PatientName = f"CANARY-ID-{number}", f"CANARY^NAME{number}"
        save(image, folder / f"{place:03d}.dcm")
    if marked:
        write_mark(folder / "mark.dcm", folder)
    return folder


def write_mark(path: Path, series: Path) -> None:
    """A report of one point in the phantom's block, by highdicom, as another program would write it."""
    import highdicom as hd
    import numpy as np
    from highdicom import sr
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    evidence = [dcmread(file) for file in sorted(series.glob("[0-9]*.dcm"))]
    for image in evidence:  # what highdicom asks for
        for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
            if keyword not in image:
                setattr(image, keyword, "")
    observer = sr.ObserverContext(
        codes.DCM.Device, sr.DeviceObserverIdentifyingAttributes(uid=f"{evidence[0].StudyInstanceUID}.7")
    )
    region = sr.ImageRegion3D(sr.GraphicTypeValues3D.POINT, np.array([CENTER_LPS]), evidence[0].FrameOfReferenceUID)
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(f"{evidence[0].StudyInstanceUID}.8", "Lesion 1"),
        referenced_region=region,
        finding_type=codes.SCT.Lesion,
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.cid100.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=report,
        series_instance_uid=f"{evidence[0].StudyInstanceUID}.4",
        series_number=7,
        sop_instance_uid=f"{evidence[0].StudyInstanceUID}.5",
        instance_number=1,
        manufacturer="Another program",
        is_complete=True,
    ).save_as(path)


def storescu(port: int, *paths: Path, calling: str = "STORESCU", called: str = "MALIGNANCY", options=()) -> int:
    """Send files and folders; the exit code."""
    command = ["storescu", "-aet", calling, "-aec", called, "-R", "+sd", "+r", *options, "127.0.0.1", str(port)]
    return subprocess.run([*command, *map(str, paths)], capture_output=True, timeout=120).returncode
