"""The cache of prepared inputs: the same numbers, never of another scan, whatever happened to its files."""

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from pipeline import imaging
from pipeline.cases import cache, prepare
from pipeline.cases.cache import StoredInputs
from pipeline.cases.manifest import read_manifest
from pipeline.cases.prepare import prepare_cases
from pipeline.config.inputs import InputCache, Preprocessing
from pipeline.errors import CaseError
from pipeline.imaging.preprocess import preprocess

SETTINGS = Preprocessing(region="lesion", size=(28, 28, 28), spacing_mm=(1.25, 1.25, 1.25))

OTHER = SETTINGS.model_copy(update={"size": (32, 32, 32)})


@pytest.fixture
def manifest(cohort_manifest, tmp_path):
    shutil.copytree(cohort_manifest.parent, tmp_path / "scans")
    found = read_manifest(tmp_path / "scans" / "manifest.csv")
    return replace(found, cases=found.cases[:6])


@pytest.fixture
def config(tmp_path):
    return InputCache(folder=tmp_path / "cache")


@pytest.fixture
def read(monkeypatch):
    """Scans that were really read, as they are."""
    names = []

    def counting(request, *args, **kwargs):
        names.append(request.path.name)
        return preprocess(request, *args, **kwargs)

    monkeypatch.setattr(prepare, "preprocess", counting)
    return names


def prepared(manifest, config, settings=SETTINGS):
    stored = StoredInputs(config) if config else None
    return [
        outcome
        for _, outcome in prepare_cases(manifest.cases, settings, modality="CT", root=manifest.root, stored=stored)
    ]


def entries(config):
    return sorted(config.folder.glob("*/*.input"))


def facts(found):
    return {name: value for name, value in vars(found).items() if name != "voxels"} | {"bytes": found.voxels.tobytes()}


def test_stored_input_is_the_prepared_one_and_the_scan_is_read_once(manifest, config, read):
    plain = prepared(manifest, None)
    read.clear()
    first, second = prepared(manifest, config), prepared(manifest, config)
    assert sorted(read) == sorted(case.path.name for case in manifest.cases)
    for found in (first, second):
        assert [facts(each) for each in found] == [facts(each) for each in plain]
    assert not second[0].voxels.flags.owndata  # mapped, not read


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "facts"])
def test_damaged_entry_is_built_again(manifest, config, read, damage):
    expected = [facts(each) for each in prepared(manifest, config)]
    entry = entries(config)[0]
    data = bytearray(entry.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "empty":
        data.clear()
    else:
        data[100 if damage == "flip" else -40] ^= 1
    entry.write_bytes(data)
    read.clear()
    assert [facts(each) for each in prepared(manifest, config)] == expected
    assert len(read) == 1
    assert [facts(each) for each in prepared(manifest, config)] == expected
    assert len(read) == 1  # and stays whole


def test_changed_scan_is_read_again_even_with_its_old_time(manifest, config, read):
    before = prepared(manifest, config)
    path = manifest.cases[0].path
    stat, image = path.stat(), nib.load(path)
    voxels = np.asarray(image.dataobj)
    voxels[20, 20, 10] += 100
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    read.clear()
    after = prepared(manifest, config)
    assert read == [path.name]
    assert not np.array_equal(after[0].voxels, before[0].voxels)


def test_touched_or_copied_scan_with_the_same_bytes_is_not_prepared_again(manifest, config, read):
    prepared(manifest, config)
    for case in manifest.cases:
        shutil.copy(case.path, case.path.with_suffix(".copy"))
        os.replace(case.path.with_suffix(".copy"), case.path)
    read.clear()
    prepared(manifest, config)
    assert read == []


@pytest.mark.parametrize("changed", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"])
def test_a_scan_of_another_size_time_or_inode_looks_different(manifest, monkeypatch, changed):
    facts = {"st_size": 7, "st_mtime_ns": 10**18, "st_ctime_ns": 10**18, "st_ino": 12}

    def look_of(facts):
        file = SimpleNamespace(stat=lambda: SimpleNamespace(**facts))
        monkeypatch.setattr(cache, "source_files", lambda case: [file])
        return cache.look(manifest.cases[0])

    assert look_of(facts) == look_of(dict(facts))
    assert look_of(facts) != look_of(facts | {changed: facts[changed] + 1})


def test_other_preprocessing_centre_or_code_is_another_entry(manifest, config, read, monkeypatch):
    prepared(manifest, config)
    prepared(manifest, config, SETTINGS.model_copy(update={"spacing_mm": (1.0, 1.0, 1.0)}))
    moved = tuple(replace(case, center_mm=(1.0, 0.0, 0.0)) for case in manifest.cases)
    prepared(replace(manifest, cases=moved), config)
    monkeypatch.setattr(cache, "reading_code", lambda: "another reader")
    prepared(manifest, config)
    assert len(read) == 4 * len(manifest.cases)
    assert len(entries(config)) == 4 * len(manifest.cases)


def test_vanished_scan_and_one_outside_the_root_are_rejected_though_stored(manifest, config, tmp_path):
    prepared(manifest, config)
    gone, linked = manifest.cases[0].path, manifest.cases[1].path
    gone.unlink()
    shutil.move(linked, tmp_path / "elsewhere.nii.gz")
    linked.symlink_to(tmp_path / "elsewhere.nii.gz")
    codes = [str(each.code) for each in prepared(manifest, config) if isinstance(each, CaseError)]
    assert codes == ["E_NOT_FOUND", "E_OUTSIDE_ROOT"]


def test_cache_stays_within_its_size_and_forgets_what_was_not_used_longest(manifest, config):
    prepared(manifest, config)
    size = entries(config)[0].stat().st_size
    for number, entry in enumerate(entries(config)):
        os.utime(entry, ns=(number, number))
    oldest = entries(config)[:2]
    small = InputCache(folder=config.folder, max_gb=6.5 * size / 1e9)
    other = replace(manifest, cases=tuple(replace(case, center_mm=(1.0, 0.0, 0.0)) for case in manifest.cases[:2]))
    prepared(other, small)
    assert len(entries(config)) == 6
    assert not any(entry.exists() for entry in oldest)


def test_an_entry_is_stored_where_it_just_fits(manifest, config, tmp_path):
    one = replace(manifest, cases=manifest.cases[:1])
    prepared(one, config)
    size = entries(config)[0].stat().st_size
    for name, room, stored in (("fits", size + 0.5, 1), ("does not", size - 0.5, 0)):
        other = InputCache(folder=tmp_path / name, max_gb=room / 1e9)
        prepared(one, other)
        assert len(entries(other)) == stored


def test_a_full_disk_leaves_inputs_in_memory_and_counts_them(manifest, config, monkeypatch, capsys):
    def full(path):
        raise OSError(28, "No space left on device")

    plain = [facts(each) for each in prepared(manifest, None)]
    monkeypatch.setattr(cache, "atomic_write", full)
    stored = StoredInputs(config)
    found = prepare_cases(manifest.cases, SETTINGS, modality="CT", root=manifest.root, stored=stored)
    assert [facts(each) for _, each in found] == plain
    assert (stored.refused, entries(config)) == (len(manifest.cases), [])
    stored.report()
    assert f"data.cache: {len(manifest.cases)} inputs found no room" in capsys.readouterr().err


def test_an_entry_that_the_system_does_not_map_is_read(manifest, config, read, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("unable to mmap")

    expected = [facts(each) for each in prepared(manifest, config)]
    read.clear()
    monkeypatch.setattr(cache.torch, "from_file", refuse)
    assert [facts(each) for each in prepared(manifest, config)] == expected
    assert read == []


def test_what_is_written_into_a_mapped_input_stays_out_of_the_cache(manifest, config):
    prepared(manifest, config)
    before = [entry.read_bytes() for entry in entries(config)]
    for found in prepared(manifest, config):
        found.voxels[...] = 7
    assert [entry.read_bytes() for entry in entries(config)] == before


def test_only_entries_are_evicted_and_all_of_it_is_its_owners_alone(manifest, config):
    prepared(manifest, config)
    folders = [config.folder, *(entry.parent for entry in entries(config))]
    assert {f"{stat.S_IMODE(path.stat().st_mode):o}" for path in folders} == {"700"}
    assert {f"{stat.S_IMODE(path.stat().st_mode):o}" for path in entries(config)} == {"600"}
    theirs = config.folder / "notes" / "of-mine.input"
    theirs.parent.mkdir()
    theirs.write_text("precious")
    os.utime(theirs, ns=(0, 0))
    prepared(manifest, InputCache(folder=config.folder, max_gb=1e-9))
    prepared(replace(manifest, cases=manifest.cases[:1]), InputCache(folder=config.folder, max_gb=1e-9), OTHER)
    assert theirs.read_text() == "precious"


def test_inputs_without_room_stay_in_memory_and_are_counted(manifest, config, capsys):
    full = InputCache(folder=config.folder, max_gb=1e-9)
    stored = StoredInputs(full)
    found = [
        each for _, each in prepare_cases(manifest.cases, SETTINGS, modality="CT", root=manifest.root, stored=stored)
    ]
    stored.report()
    assert [facts(each) for each in found] == [facts(each) for each in prepared(manifest, None)]
    assert entries(config) == []
    assert "6 inputs found no room" in capsys.readouterr().err


def test_evicted_entry_stays_readable_where_it_is_mapped(manifest, config):
    found = prepared(manifest, config)
    expected = [facts(each) for each in found]
    shutil.rmtree(config.folder)
    assert [facts(each) for each in found] == expected


def test_two_preparations_at_once_share_the_folder(manifest, config):
    expected = [facts(each) for each in prepared(manifest, None)]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: prepared(manifest, config), range(4)):
            assert [facts(each) for each in found] == expected
    assert len(entries(config)) == len(manifest.cases)
    assert not list(config.folder.rglob("*.tmp"))


def test_changed_code_in_a_sub_package_of_the_readers_is_another_entry(tmp_path):
    source = tmp_path / "readers"
    shutil.copytree(Path(imaging.__file__).parent, source)
    before = cache.source_digest(source)
    reader = source / "dicom" / "geometry.py"
    reader.write_text(reader.read_text() + "\n# another rounding\n")
    assert cache.source_digest(source) != before
