"""Read a made folder's scans as other programs do, and measure them; nothing here uses the project's own readers."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
from PIL import Image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from made_folders.geometry import LPS_TO_RAS
from made_folders.truth import MadeFolder, MadeScan


def read(folder: MadeFolder, scan: MadeScan) -> tuple[np.ndarray, np.ndarray | None]:
    """Values along the stored axes, as the format's own program shows them, and the affine to RAS mm or None."""
    path = folder.path(scan)
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L")).T.astype(float), None
    if path.suffix == ".dcm":
        image = pydicom.dcmread(path)
        stored = image.pixel_array.T.astype(float)
        return (4095 - stored if image.PhotometricInterpretation == "MONOCHROME1" else stored), None
    if path.name.endswith((".nii.gz", ".mgz")):
        image = nib.load(path)
        return image.get_fdata(), image.affine
    if path.is_dir():
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        return from_itk(reader.Execute())
    return from_itk(SimpleITK.ReadImage(str(path)))


def from_itk(image: SimpleITK.Image) -> tuple[np.ndarray, np.ndarray]:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T.astype(float), LPS_TO_RAS @ affine


def in_units(values: np.ndarray, modality: str) -> np.ndarray:
    """Brightness that lesions have more of: HU, MR relative to the head's median, dark ultrasound, dense breast."""
    if modality == "MR":
        return values / np.median(values[values > 0.3 * np.percentile(values, 99)])
    return -values if modality == "US" else values


def around(values: np.ndarray, center: tuple[float, ...], reach: int) -> np.ndarray:
    """The cube of voxels around a centre."""
    middle = np.rint(center).astype(int)
    return values[tuple(slice(max(n - reach, 0), n + reach + 1) for n in middle)]


def components(mask: np.ndarray) -> list[np.ndarray]:
    """Centroids of a mask's lesions in voxels: a connected part of a label each."""
    centers = []
    for label in np.unique(mask[mask > 0]):
        parts, count = ndimage.label(mask == label, np.ones((3,) * mask.ndim))
        centers += [np.argwhere(parts == number).mean(0) for number in range(1, count + 1)]
    return centers


def nearest_mm(point: np.ndarray, points: list[np.ndarray]) -> float:
    return min(float(np.linalg.norm(np.subtract(point, other))) for other in points)


def measures(folder: MadeFolder) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two numbers of each labelled lesion (of a head, of the image): size and brightness; labels; patients."""
    numbers, labels, patients = [], [], []
    modality = folder.expected.modality
    for scan in folder.expected.labelled:
        values = in_units(read(folder, scan)[0], modality)
        if modality == "MR":
            numbers.append((np.log1p(np.sum(values > 1.75)), np.percentile(values, 99.9)))
            labels.append(scan.malignant)
            patients.append(scan.patient or scan.path)
            continue
        for lesion in scan.lesions:
            region = around(values, lesion.center_voxel, 7 if values.ndim == 3 else 14)
            middle = around(values, lesion.center_voxel, 1).mean()
            numbers.append((np.log1p(np.sum(region > (np.median(region) + middle) / 2)), middle))
            labels.append(lesion.malignant)
            patients.append(scan.patient or scan.path)
    return np.array(numbers), np.array(labels), patients


def separation(folder: MadeFolder) -> float:
    """AUROC of a logistic regression on the two measures, of patients it was not fitted on."""
    numbers, labels, patients = measures(folder)
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    said = cross_val_predict(model, numbers, labels, groups=patients, cv=folds, method="predict_proba")
    return float(roc_auc_score(labels, said[:, 1]))
