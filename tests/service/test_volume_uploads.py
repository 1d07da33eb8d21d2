"""Volumes of several files that are not DICOM, sent together: the same row as from a folder, and no name escapes."""

from __future__ import annotations

import io
import json
import zipfile

import nibabel as nib
import numpy as np
import pytest
from serving import MIDDLE

from pipeline.cases.case import Case
from pipeline.files import parse_json
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer
from pipeline.service.answers import RequestError
from pipeline.service.uploads import Upload
from pipeline.service.volume_uploads import put_together

MHD = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -16 -16 -16
ElementSpacing = 2 2 2
DimSize = 16 16 16
ElementType = MET_SHORT
ElementDataFile = {name}
"""
NHDR = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 16 16 16
space directions: (2,0,0) (0,2,0) (0,0,2)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (-16,-16,-16)
data file: {name}

"""
VOXELS = np.random.default_rng(3).normal(-850, 40, (16, 16, 16)).astype("<i2")


def pairs(folder):
    """By format the files of one volume, the header first."""
    raw = VOXELS.tobytes(order="F")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -16
    nib.save(nib.Nifti1Pair(VOXELS, affine), folder / "pair.img")
    array = io.BytesIO()
    np.save(array, VOXELS)
    return {
        "mhd": {"scan 1.mhd": MHD.format(name="scan 1.raw").encode(), "scan 1.raw": raw},
        "mhd of slices": {
            "s.mhd": MHD.format(name="s%02d.raw 1 16 1").encode(),
            **{f"s{n + 1:02d}.raw": VOXELS[:, :, n].tobytes(order="F") for n in range(16)},
        },
        "nhdr": {"scan.nhdr": NHDR.format(name="scan.raw").encode(), "scan.raw": raw},
        "hdr": {name: (folder / name).read_bytes() for name in ("pair.hdr", "pair.img")},
        "npy": {"scan.npy": array.getvalue(), "scan.json": json.dumps({"affine": affine.tolist()}).encode()},
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return pairs(tmp_path_factory.mktemp("pairs"))


def expected_row(files, folder, model):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    header = folder / next(iter(files))
    case = Case(case_id="a", image="a", path=header, center_mm=(0.0, 0.0, 0.0))
    (row,) = score_cases(Scorer(load_model(model)), [case])
    return row


def as_parts(files):
    return [("file", (name, content)) for name, content in files.items()]


@pytest.mark.parametrize("kind", ["mhd", "mhd of slices", "nhdr", "hdr", "npy"])
def test_files_of_one_volume_get_the_row_that_a_folder_gives(client, written, kind, tiny_model, tmp_path):
    expected = expected_row(written[kind], tmp_path, tiny_model)
    assert expected.status in ("scored", "flagged"), expected.reason
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in written[kind].items():
            archive.writestr(f"folder/{name}", content)
    answers = [
        client.post("/v1/score", files=as_parts(written[kind]), data=MIDDLE),
        client.post("/v1/score", files=as_parts(written[kind])[::-1], data=MIDDLE),
        client.post("/v1/score", content=packed.getvalue(), params=MIDDLE, headers={"Content-Type": "application/zip"}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        (row,) = parse_json(answer.content)["rows"]
        assert row["probability"] == pytest.approx(expected.probability, abs=1e-6)
        assert (row["warnings"], row["image_sha256"]) == (expected.warnings, expected.image_sha256)
        assert row["image"].endswith(next(iter(written[kind])).rpartition(".")[2])


def test_a_data_file_that_was_not_sent_is_422(client, written):
    files = as_parts(written["mhd of slices"])
    answer = client.post("/v1/score", files=files[:-1], data=MIDDLE)
    assert answer.status_code == 422
    assert parse_json(answer.content)["error"]["code"] == "E_SIDE_FILE"


def test_a_file_that_no_header_names_is_refused(client, written):
    files = [*as_parts(written["mhd"]), ("file", ("other.raw", b"0"))]
    answer = client.post("/v1/score", files=files, data=MIDDLE)
    assert answer.status_code == 400
    assert "1 of 2 files beside the header are not named in it" in parse_json(answer.content)["error"]["reason"]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.raw", "sub/secret.raw", ".hidden", "a\x07.raw", "000001.mhd", "", "x" * 300]
)
def test_a_header_cannot_name_a_path(name, tmp_path):
    folder = tmp_path / "request"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(b"secret")
    header, data = folder / "000001.mhd", folder / "000002.other"
    header.write_text(MHD.format(name=name))
    data.write_bytes(b"0")
    upload = Upload(files=[header, data], sent_names={header: "a.mhd", data: name.rpartition("/")[2]})
    with pytest.raises(RequestError, match="are not named in it"):
        put_together(upload)
    assert sorted(path.name for path in folder.iterdir()) == ["000001.mhd", "000002.other"]


def test_two_files_of_one_name_are_refused(tmp_path):
    paths = [tmp_path / name for name in ("000001.mhd", "000002.other", "000003.other")]
    paths[0].write_text(MHD.format(name="a.raw"))
    upload = Upload(files=paths, sent_names=dict(zip(paths, ("a.mhd", "a.raw", "a.raw"), strict=True)))
    with pytest.raises(RequestError, match="two files have one name"):
        put_together(upload)


def test_series_and_several_headers_stay_as_they_are(tmp_path):
    for names in (("000001.dcm", "000002.dcm"), ("000001.mhd", "000002.nhdr"), ("000001.hdr", "000002.dcm")):
        files = [tmp_path / name for name in names]
        upload = Upload(files=list(files), sent_names={path: path.name for path in files})
        put_together(upload)
        assert upload.files == files
