"""Whatever the bytes, a scan or a CaseError comes back; no hang, and no patient's name."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from dicom_writing import ALL, ct_slice, save, write_multiframe
from fuzzing import QUIET, fuzz_in_rounds, growth_mb
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from pipeline.config.inputs import Limits
from pipeline.errors import CaseError
from pipeline.imaging.dicom.codestream import CodestreamError, inspect_jpeg, inspect_jpeg_2000, unpack_rle
from pipeline.imaging.dicom.scan import open_series

LIMITS = Limits(max_voxels=10**6, max_bytes=10**8)
SECONDS = 20  # an input takes milliseconds; only a hang comes near


@cache
def seeds() -> tuple[bytes, ...]:
    """One file of each kind of storage."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        files = [
            save(ct_slice(0), folder / "plain"),
            save(ct_slice(0, syntax=ImplicitVRLittleEndian), folder / "implicit"),
            save(ct_slice(0, syntax=DeflatedExplicitVRLittleEndian), folder / "deflated"),
            write_multiframe(folder / "multi"),
        ]
        for syntax in (JPEG2000Lossless, RLELossless):
            image = ct_slice(0)
            image.Rows = image.Columns = 64
            image.PixelData = np.random.default_rng(0).integers(0, 3000, (64, 64)).astype("<u2").tobytes()
            image.compress(syntax, generate_instance_uid=False)
            files.append(save(image, folder / syntax))
        colours = ct_slice(0)
        colours.Modality, colours.SamplesPerPixel, colours.PlanarConfiguration = "US", 3, 0
        colours.PhotometricInterpretation, colours.BitsAllocated = "RGB", 8
        colours.BitsStored, colours.HighBit = 8, 7
        colours.PixelData = np.random.default_rng(0).integers(0, 250, (20, 24, 3)).astype("u1").tobytes()
        files.append(save(colours, folder / "colours"))
        plain = files[0].read_bytes()
        files.append(folder / "bare")
        files[-1].write_bytes(plain[144 + int.from_bytes(plain[140:144], "little") :])
        test_files = Path(pydicom.__file__).parent / "data" / "test_files"
        files += [path for path in [test_files / "MR_small_jpeg_ls_lossless.dcm"] if path.exists()]
        return tuple(file.read_bytes() for file in files)


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
    """A few of: flipped bits, other bytes, a cut, a hole, a repetition, a length made huge."""
    rng, out = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # Most of a file is pixels, and most of what can break stands before them.
        place = rng.randrange(len(out)) if rng.random() < 0.4 else rng.randrange(min(len(out), 1700))
        kind = rng.randrange(7)
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
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\xfe\xff\x00\xe0"]
            )
        else:
            out[place : place + 2] = rng.choice([b"SQ", b"UN", b"OB", b"DS", b"PN", b"UT", b"\0\0"])
        out = out or bytearray(b"\0")
    return bytes(out)


def judge(path: Path) -> None:
    with alarm(SECONDS):
        try:
            scan = open_series(path, limits=LIMITS)
            scan.read(ALL)
            assert scan.digest
            texts = [warning.detail for warning in scan.warnings]
        except CaseError as error:
            texts = [error.reason]
    assert not any("CANARY" in text for text in texts), texts


def fuzz(data: st.DataObject, path: Path) -> None:
    files = seeds()
    kind, seed = data.draw(st.integers(0, len(files) - 1)), data.draw(st.integers(0, 2**32))
    path.write_bytes(mutate(files[kind], seed))
    judge(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.dcm"


@settings(max_examples=120, **QUIET)
@given(data=st.data())
def test_mutated_file_is_read_or_refused(path: Path, data: st.DataObject) -> None:
    fuzz(data, path)


@pytest.mark.slow
@settings(max_examples=600, **QUIET)
@given(data=st.data())
def test_hundreds_of_mutated_files_are_read_or_refused(path: Path, data: st.DataObject) -> None:
    fuzz(data, path)


@pytest.mark.campaign
def test_ten_thousand_mutated_files_are_read_or_refused_and_leak_nothing(path: Path) -> None:
    def inspect(mutation: tuple[int, int]) -> None:
        kind, number = mutation
        path.write_bytes(mutate(seeds()[kind], number))
        judge(path)

    mutations = st.tuples(st.integers(0, len(seeds()) - 1), st.integers(0, 2**32))
    count, memory = fuzz_in_rounds(mutations, inspect, rounds=10, each=1000)
    print(f"fuzzed {count} files; MB after each thousand: {[round(each) for each in memory]}")
    assert count >= 10_000
    assert growth_mb(memory) < 8  # over 8,000 inputs: a kilobyte each


@settings(max_examples=150, **QUIET)
@given(content=st.binary(max_size=400))
def test_any_codestream_is_inspected_or_refused(content: bytes) -> None:
    for head in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51"):
        for inspect in (
            lambda data: inspect_jpeg(data, jpeg_ls=False),
            lambda data: inspect_jpeg(data, jpeg_ls=True),
            inspect_jpeg_2000,
            lambda data: unpack_rle(data, pixels=50, planes=2),
        ):
            with suppress(CodestreamError):
                inspect(head + content)


def _codestream(number: int) -> tuple[bytes, Dataset]:
    path = seeds()[number]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        file.write_bytes(path)
        image = pydicom.dcmread(file)
    return next(generate_frames(image.PixelData, number_of_frames=1)), image


def test_sound_codestream_is_accepted() -> None:
    """The inspection refuses nothing that an encoder wrote."""
    frame, image = _codestream(4)
    found = inspect_jpeg_2000(frame)
    assert (found.rows, found.columns, found.components) == (image.Rows, image.Columns, 1)
