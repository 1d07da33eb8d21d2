"""Machines as people have them: a user without a passwd entry, macOS, Windows."""

import gc
import os
import pwd
import subprocess
import sys

import pytest

from pipeline import machine
from pipeline.machine import (
    ensure_user_name,
    garbage_collection_paused,
    may_have_gpu,
    peak_memory_megabytes,
    usable_cores,
)

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def no_such_user(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")


def test_a_user_without_a_passwd_entry_can_import_monai_and_mlflow():
    """In a process of its own, because an import happens once."""
    code = (
        "import pwd\n"
        "def none(number): raise KeyError(number)\n"
        "pwd.getpwuid = none\n"
        "import pipeline, getpass\n"
        "import pipeline.imaging.preprocess, pipeline.tracking.store\n"
        "print(getpass.getuser())\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"uid{os.getuid()}"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_known_is_left_alone(monkeypatch, name):
    for each in NAMES:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "anne")
    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    ensure_user_name()
    assert {each: os.environ.get(each) for each in NAMES} == {**dict.fromkeys(NAMES), name: "anne"}


def test_cores_without_affinity_are_those_of_the_machine(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()


def test_cores_are_those_that_this_process_may_use():
    code = "import os; os.sched_setaffinity(0, {0}); from pipeline.machine import usable_cores; print(usable_cores())"
    if not hasattr(os, "sched_setaffinity") or 0 not in os.sched_getaffinity(0):
        pytest.skip("this system cannot pin a process to core 0")
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"


@pytest.mark.parametrize(("platform", "divisor"), [("linux", 2**10), ("darwin", 2**20)])
def test_memory_is_in_megabytes_whatever_unit_the_system_counts_in(monkeypatch, platform, divisor):
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_memory_megabytes() == pytest.approx(peak / divisor, rel=0.05)


def test_windows_is_refused_in_one_line():
    code = (
        "import sys; sys.platform = 'win32'\ntry:\n    import pipeline\nexcept ImportError as error:\n    print(error)"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "runs on Linux and macOS; on Windows, use it in WSL" in said


def test_a_gpu_is_asked_for_only_where_a_device_is(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_GPU_DEVICES", (str(tmp_path / "none"), str(tmp_path / "device")))
    assert not may_have_gpu()
    (tmp_path / "device").touch()
    assert may_have_gpu()


def limited(monkeypatch, tmp_path, groups, files):
    """A machine whose /proc and /sys hold these."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "_CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/pod/one\n", {"pod/one/cpu.max": "max 100000\n", "pod/cpu.max": "350000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ("0::/\n", {"cpu.max": "damaged"}, 16),
    ],
)
def test_cores_are_those_that_a_container_may_use(monkeypatch, tmp_path, groups, files, cores):
    limited(monkeypatch, tmp_path, groups, files)
    assert machine.usable_cores() == cores


def test_threads_are_as_many_as_the_quota_unless_the_user_says_so(monkeypatch, tmp_path):
    limited(monkeypatch, tmp_path, "0::/\n", {"cpu.max": "200000 100000\n"})
    monkeypatch.setattr(os, "environ", {})
    machine.limit_threads_to_quota()
    assert os.environ == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "7"})
    machine.limit_threads_to_quota()
    assert os.environ == {"OMP_NUM_THREADS": "7"}


def test_without_a_quota_torch_takes_its_own_number_of_threads(monkeypatch, tmp_path):
    limited(monkeypatch, tmp_path, "0::/\n", {"cpu.max": "max 100000\n"})
    monkeypatch.setattr(os, "environ", {})
    machine.limit_threads_to_quota()
    assert os.environ == {}


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_afterwards_as_before(enabled):
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ImportError, match="halted"), garbage_collection_paused():
            assert not gc.isenabled()
            raise ImportError("halted")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
