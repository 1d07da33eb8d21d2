"""The same lesion in every format: the same centre, and the same probability."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lesion_files import (
    AXIAL,
    CENTER,
    OBLIQUE,
    outlines,
    pixel_edges,
    planar_group,
    region_in_space,
    region_on_image,
    write_fcsv,
    write_lidc_xml,
    write_markups,
    write_mask,
    write_report,
    write_rows,
    write_scan,
    write_segmentation,
    write_structure_set,
)
from tiny_models import save_tiny
from torch import nn

from pipeline.cases.case import Case
from pipeline.cases.inputs import Inputs
from pipeline.cases.lesions.locate import locate
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer


def write_all(scan, folder):
    """The lesion in each format, each file in a folder of its own."""
    middle = np.argwhere(scan.mask).mean(0)
    lps = scan.lps(middle)[0]
    ras = scan.center_mm
    on_slice = np.array([[-5, 0], [5, 0], [0, -4], [0, 4]]) + middle[:2] + 0.5
    volume = [region_on_image(scan, "POLYLINE", edges, number) for number, edges in _closed_edges(scan)]
    files = {name: folder / name / "x.dcm" for name in ("seg", "fractional", "labelmap", "rtstruct")}
    write_segmentation(scan, files["seg"])
    write_segmentation(scan, files["fractional"], [scan.mask * 0.6], kind="FRACTIONAL")
    write_segmentation(scan, files["labelmap"], kind="LABELMAP")
    write_structure_set(scan, files["rtstruct"])
    for name, group in {
        "sr-point": planar_group(scan, region_in_space(scan, "POINT", lps), diameter_mm=9.0),
        "sr-ellipse-on-image": planar_group(scan, region_on_image(scan, "ELLIPSE", on_slice, CENTER[2])),
        "sr-polygon": planar_group(scan, region_in_space(scan, "POLYGON", _ring(scan))),
        "sr-volume": volumetric_group(volume),
    }.items():
        files[name] = folder / name / "x.dcm"
        write_report(scan, files[name], [group])
    for system in ("LPS", "RAS"):
        files[f"markups-{system}"] = write_markups(scan, folder / f"markups-{system}" / "x.mrk.json", system=system)
    ends = [{"position": (scan.center_mm + sign * np.array([-4, 3, 1])).tolist()} for sign in (1, -1)]
    line = {"kind": "Line", "system": "RAS", "controlPoints": ends}
    files["markups-line"] = write_markups(scan, folder / "line" / "x.mrk.json", **line)
    for system in ("0", "1", "RAS", "LPS"):
        files[f"fcsv-{system}"] = write_fcsv(scan, folder / f"fcsv-{system}" / "x.fcsv", system=system)
    files["mask"] = write_mask(scan, folder / "mask" / "ct_mask.nii.gz")
    files["lidc"] = write_lidc_xml(scan, folder / "lidc" / "x.xml")
    luna = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
    files["luna16"] = write_rows(folder / "luna16" / "annotations.csv", luna, [scan.series, *lps, 9.0])
    center = ("image", "center_x_mm", "center_y_mm", "center_z_mm", "coordinate_system")
    files["table-lps"] = write_rows(folder / "lps" / "t.csv", center, ["ct", *lps, "lps"])
    files["table-ras"] = write_rows(folder / "ras" / "t.tsv", ("case_id", "x", "y", "z", "System"), ["ct", *ras, "Ras"])
    voxels = ("case_id", "i", "j", "k", "index_base")
    files["voxels-0"] = write_rows(folder / "voxels-0" / "t.csv", voxels, ["ct", *middle, 0])
    files["voxels-1"] = write_rows(folder / "voxels-1" / "t.csv", voxels, ["ct", *(middle + 1), 1])
    return files


def _closed_edges(scan):
    for number in np.flatnonzero(scan.mask.any((0, 1))):
        edges = pixel_edges(scan.mask[:, :, number]) + 0.5
        yield number, np.vstack([edges, edges[:1]])


def _ring(scan):
    """The outline on the lesion's middle slice, closed."""
    ring = outlines(scan)[len(outlines(scan)) // 2]
    return np.vstack([ring, ring[:1]])


def volumetric_group(regions):
    from highdicom.sr import TrackingIdentifier, VolumetricROIMeasurementsAndQualitativeEvaluations
    from pydicom.sr.codedict import codes

    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier("1.2.3", "CANARY^ANNE"),
        referenced_regions=regions,
        finding_type=codes.SCT.Nodule,
    )


class Ramps(nn.Module):
    """A logit that a shift of the cube by a tenth of a millimetre changes along every axis."""

    def forward(self, images):  # (B, 1, R, A, S)
        ramps = [torch.linspace(-1, 1, length) for length in images.shape[2:]]
        means = [images.mean(dim=[axis for axis in range(1, 5) if axis != kept]) for kept in (2, 3, 4)]
        return 8 * sum(mean @ ramp for mean, ramp in zip(means, ramps, strict=True))[:, None]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiny_models.build_network", lambda config, *, dimensions, outputs: Ramps())
        save_tiny(folder)
        patch.setattr("pipeline.scoring.model_directory.build_network", lambda config, *, dimensions, outputs: Ramps())
        return Scorer(load_model(folder), device="cpu")


@pytest.mark.parametrize("directions", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_the_same_lesion_in_every_format_has_the_same_centre_and_probability(directions, scorer, tmp_path):
    scan = write_scan(tmp_path / "scans" / "ct", directions, origin=(-31.733, 12.321, -104.617))
    files = write_all(scan, tmp_path / "annotations")
    root = tmp_path / "scans"
    case = Case(case_id="ct", image="ct", path=root / "ct")
    inputs = Inputs(lambda _: (case,), str(root), root, digest="of a manifest")
    found = {}
    for name, path in files.items():
        located = locate(inputs, [path])
        assert [str(refused) for refused in located.match.homeless] == [], name
        (lesion,) = located.lesions
        (row,) = scorer.score([scorer.prepare(located.cases[0])])
        assert row.status in ("scored", "flagged"), (name, row.reason)
        found[name] = lesion.case.center_mm, row.probability
        assert np.linalg.norm(lesion.case.center_mm - scan.center_mm) < 0.001, name
    assert {lesion.format for lesion in [locate(inputs, [path]).lesions[0].lesion for path in files.values()]} == {
        "mask", "dicom-seg", "rtstruct", "dicom-sr", "slicer-markups", "fcsv", "luna16", "lidc-xml", "table",
        "voxel-table",
    }  # fmt: skip
    assert len({center for center, _ in found.values()}) == 1
    probabilities = [probability for _, probability in found.values()]
    assert max(probabilities) - min(probabilities) <= 1e-6
    for step in np.eye(3) * 0.1:  # the comparison above would notice a tenth of a millimetre
        (row,) = scorer.score([scorer.prepare(replace(case, center_mm=tuple(scan.center_mm + step)))])
        assert abs(row.probability - probabilities[0]) > 1e-5
