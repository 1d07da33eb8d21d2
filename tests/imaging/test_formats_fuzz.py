"""Whatever the bytes of a picture or a volume, a scan or a CaseError comes back; no hang, nothing else raised."""

from __future__ import annotations

import gzip
import io
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fuzzing import QUIET, fuzz_in_rounds, growth_mb
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from test_picture_depth import png, tiff
from volume_files import DATA, SIDECAR, VOXELS, meta_header, mgh_bytes, nrrd_header, packed, write_npy

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError
from pipeline.imaging.read import open_scan
from pipeline.imaging.side_files import side_files

LIMITS = Limits(max_voxels=10**6, max_bytes=10**8)
SECONDS = 20  # an input takes milliseconds; only a hang comes near
WHOLE = (slice(None), slice(None), slice(None))
GREY = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
DEEP = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)


def picture(kind: str, values: np.ndarray = GREY, **options: object) -> bytes:
    target = io.BytesIO()
    Pillow.fromarray(values).save(target, kind, **options)
    return target.getvalue()


@cache
def seeds() -> dict[str, bytes]:
    """One file of each kind, by name."""
    listed = "LIST\n" + "\n".join(f"{number}.raw" for number in range(5))
    array = io.BytesIO()
    np.save(array, VOXELS)
    return {
        "a.mha": meta_header() + DATA,
        "b.mha": meta_header({"CompressedData": "True"}) + packed(),
        "a.mhd": meta_header({"ElementDataFile": listed}),
        "b.mhd": meta_header({"ElementDataFile": "%d.raw 0 4 1"}),
        "a.nrrd": nrrd_header() + b"\n" + DATA,
        "b.nrrd": nrrd_header({"encoding": "gzip"}) + b"\n" + gzip.compress(DATA),
        "a.nhdr": nrrd_header({"data file": listed}),
        "b.nhdr": nrrd_header({"data file": "%d.raw 0 4 1"}),
        "a.mgh": mgh_bytes(),
        "a.mgz": gzip.compress(mgh_bytes()),
        "a.npy": array.getvalue(),
        "a.png": png(DEEP),
        "b.png": png(DEEP, interlaced=True),
        "a.tif": tiff(DEEP, compression=8, predictor=2),
        "b.tif": tiff(DEEP, DEEP, tile=16, planar=2),
        "c.tif": tiff(DEEP, big=True, order=">"),
        "a.bmp": picture("BMP"),
        "a.webp": picture("WEBP", lossless=True),
        "a.jp2": picture("JPEG2000"),
        "a.jpg": picture("JPEG"),
    }


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise AssertionError(f"an input took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def mutate(data: bytes, seed: int) -> bytes:
    """A few of: flipped bits, other bytes, a cut, a hole, a repetition, a number made huge, a line repeated."""
    rng, out = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(out)) if rng.random() < 0.4 else rng.randrange(min(len(out), 500))
        kind = rng.randrange(8)
        if kind == 0:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[place] = rng.randrange(256)
        elif kind == 2:
            del out[place:]
        elif kind == 3:
            del out[place : place + rng.randint(1, 40)]
        elif kind == 4:
            out[place:place] = out[place : place + rng.randint(1, 200)]
        elif kind == 5:
            out[place : place + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
            )
        elif kind == 6:
            out[place : place + 2] = rng.choice([b"-1", b"1e", b"99", b"nan"[:2], b"%s", b"()", b"\n\n", b"= "])
        else:
            lines = bytes(out).split(b"\n")
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            out = bytearray(b"\n".join(lines))
        out = out or bytearray(b"\0")
    return bytes(out)


def judge(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.write_bytes(content)
    with alarm(SECONDS):
        side_files(path)
        for part in (None, "2"):
            with suppress(CaseError):
                scan = open_scan(path, limits=LIMITS, part=part)
                assert scan.read(WHOLE).dtype == np.float32
                assert scan.digest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the data files and the sidecar that the seeds name."""
    found = tmp_path_factory.mktemp("fuzz")
    for number in range(5):
        (found / f"{number}.raw").write_bytes(DATA[84 * number : 84 * (number + 1)])
    write_npy(found / "a.npy", VOXELS, SIDECAR)
    return found


@settings(max_examples=300, **QUIET)
@given(name=st.sampled_from(sorted(seeds())), seed=st.integers(0, 2**32))
def test_mutated_file_is_read_or_refused(folder: Path, name: str, seed: int) -> None:
    judge(folder, name, mutate(seeds()[name], seed))


@settings(max_examples=150, **QUIET)
@given(seed=st.integers(0, 2**32))
def test_mutated_sidecar_is_read_or_refused(folder: Path, seed: int) -> None:
    import json

    (folder / "a.json").write_bytes(mutate(json.dumps(SIDECAR).encode(), seed))
    judge(folder, "a.npy", seeds()["a.npy"])
    (folder / "a.json").write_text(json.dumps(SIDECAR))


@pytest.mark.parametrize("name", sorted(seeds()))
def test_seed_is_sound(folder: Path, name: str) -> None:
    (folder / name).write_bytes(seeds()[name])
    scan = open_scan(folder / name, limits=LIMITS, part="1")
    assert scan.read(WHOLE).std() > 0


@pytest.mark.slow
@settings(max_examples=2000, **QUIET)
@given(name=st.sampled_from(sorted(seeds())), seed=st.integers(0, 2**32))
def test_thousands_of_mutated_files_are_read_or_refused(folder: Path, name: str, seed: int) -> None:
    judge(folder, name, mutate(seeds()[name], seed))


@pytest.mark.campaign
def test_ten_thousand_mutated_files_are_read_or_refused_and_leak_nothing(folder: Path) -> None:
    def inspect(mutation: tuple[str, int]) -> None:
        judge(folder, mutation[0], mutate(seeds()[mutation[0]], mutation[1]))

    mutations = st.tuples(st.sampled_from(sorted(seeds())), st.integers(0, 2**32))
    count, memory = fuzz_in_rounds(mutations, inspect, rounds=10, each=1000)
    print(f"fuzzed {count} files; MB after each thousand: {[round(each) for each in memory]}")
    assert count >= 10_000
    assert growth_mb(memory) < 8  # over 8,000 inputs: a kilobyte each
