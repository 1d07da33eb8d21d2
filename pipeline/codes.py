"""Why a case was rejected (``E_``) or flagged (``W_``): one closed list, with cause and remedy of each."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Code(StrEnum):
    """A code of a case or table. Rows, reports and messages use no other words.

    Attributes:
        cause: what was found, in a few words.
        remedy: what to do about it.

    Example:
        >>> Code.E_TRUNCATED.remedy
        'copy the file again'
    """

    cause: str
    remedy: str

    def __new__(cls, name: str, cause: str, remedy: str) -> Self:
        """A member that is its name, with the two texts beside it."""
        member = str.__new__(cls, name)
        member._value_, member.cause, member.remedy = name, cause, remedy
        return member

    # Containers: the file as bytes.
    E_NOT_FOUND = (
        "E_NOT_FOUND",
        "no file or folder at the path, or the table names none",
        "correct the path in the manifest; mount the drive or bucket",
    )
    E_NOT_REGULAR = (
        "E_NOT_REGULAR",
        "a pipe, socket, device, or a folder where a file is expected",
        "name an ordinary file, or a folder with one DICOM series",
    )
    E_PERMISSION = (
        "E_PERMISSION",
        "the file may not be read by this user or with these credentials",
        "change its permissions, or give the credentials",
    )
    E_OUTSIDE_ROOT = (
        "E_OUTSIDE_ROOT",
        "the path, with its links followed, leads out of the manifest's folder",
        "move the scan under that folder, or copy it there",
    )
    E_EMPTY_FILE = "E_EMPTY_FILE", "0 bytes, or nothing but blanks", "copy or export the file again"
    E_FORMAT = (
        "E_FORMAT",
        "not one of the formats that are read, or its structure is broken",
        "export it as NIfTI, DICOM or another format of the list",
    )
    E_TRUNCATED = "E_TRUNCATED", "the file ends before its data do", "copy the file again"
    E_CHECKSUM = "E_CHECKSUM", "compressed data or a checksum do not hold", "copy the file again"
    E_TOO_LARGE = (
        "E_TOO_LARGE",
        "the header claims, or the data unpack to, more than `preprocessing.limits` allows",
        "look at the file; raise the limit if it is meant",
    )
    E_SIDE_FILE = "E_SIDE_FILE", "the data file of a header is missing or not its own", "copy header and data together"
    E_CODEC = (
        "E_CODEC",
        "compressed in a way that is not read",
        "export it uncompressed, or in a common transfer syntax",
    )
    E_TIMEOUT = (
        "E_TIMEOUT",
        "the scan was not read in `--timeout` seconds",
        "look at the file and the drive, or raise `--timeout`",
    )
    # Voxels.
    E_DTYPE = "E_DTYPE", "voxels are no whole or real numbers of 8 to 64 bits", "convert them"
    E_SHAPE = (
        "E_SHAPE",
        "the array has not the number or size of dimensions that an image has",
        "name one volume, or the page or frame that is meant",
    )
    E_NONFINITE = "E_NONFINITE", "NaN or infinity among the voxels", "mask or fill them, and export again"
    E_CONSTANT = (
        "E_CONSTANT",
        "every voxel has the same value, in the file or after scaling",
        "look at the export and at `preprocessing.intensity`",
    )
    E_RANGE = (
        "E_RANGE",
        "values that the modality cannot have",
        "check modality, rescale and that the file is a scan and no mask",
    )
    E_SCALING = "E_SCALING", "a rescale slope or scaling that is 0 or no number", "export the file again"
    # Geometry.
    E_SPACING = (
        "E_SPACING",
        "a spacing that is not above 0, or no real one",
        "export the scan again; correct the sidecar",
    )
    E_AFFINE = "E_AFFINE", "position, orientation or directions make no valid affine", "export the scan again"
    E_AFFINE_DISAGREE = (
        "E_AFFINE_DISAGREE",
        "two descriptions of the geometry, or an annotation and its image, contradict each other",
        "remove the wrong one",
    )
    E_ORIENTATION = (
        "E_ORIENTATION",
        "no axis is nearest to R, A or S, or one is named twice",
        "resample the image to straight axes",
    )
    E_GEOMETRY_MISSING = (
        "E_GEOMETRY_MISSING",
        "the file does not say where its voxels lie, and that is needed",
        "convert it to a format with geometry, or add a sidecar",
    )
    E_CENTER_MISSING = (
        "E_CENTER_MISSING",
        "a model of lesions got a case without a centre",
        "fill in the centre, or take it from annotations (`--lesions`)",
    )
    E_CENTER = "E_CENTER", "the centre is no three finite numbers with RAS or LPS", "correct the four columns"
    E_ROI_OUTSIDE = (
        "E_ROI_OUTSIDE",
        "the lesion centre lies outside the image",
        "check `coordinate_system` and that the centre belongs to this scan",
    )
    # DICOM series.
    E_NO_IMAGES = "E_NO_IMAGES", "no image among the objects, or nothing but localizers", "name a series of slices"
    E_NO_PIXELS = "E_NO_PIXELS", "objects without pixel data", "name the image series, or copy it again"
    E_MIXED_SERIES = "E_MIXED_SERIES", "several series where one is expected", "name one, or separate them"
    E_MIXED_PATIENT = "E_MIXED_PATIENT", "several patient ids in one series", "separate them"
    E_MIXED_ORIENTATION = "E_MIXED_ORIENTATION", "slices of several orientations", "separate or remove them"
    E_MIXED_SHAPE = "E_MIXED_SHAPE", "slices of several sizes", "separate them"
    E_MIXED_SPACING = "E_MIXED_SPACING", "slices of several pixel spacings", "separate them"
    E_SLICE_GAP = "E_SLICE_GAP", "a slice is missing, or distances are uneven", "copy the missing slices, or resample"
    E_SLICE_DUPLICATE = (
        "E_SLICE_DUPLICATE",
        "several different slices at one place",
        "separate phases, or remove copies",
    )
    E_SLICE_UNREADABLE = "E_SLICE_UNREADABLE", "a slice cannot be read, or changed meanwhile", "copy it again"
    E_RESCALE_MISSING = (
        "E_RESCALE_MISSING",
        "a CT without rescale slope and intercept, or not in Hounsfield units",
        "name the ordinary CT series",
    )
    E_PHOTOMETRIC = (
        "E_PHOTOMETRIC",
        "colours, transparency or a grey scale that has no single meaning",
        "export as greyscale with black as zero",
    )
    # Tables.
    E_ENCODING = "E_ENCODING", "not UTF-8, or with NUL characters", "save it as CSV UTF-8"
    E_NO_ROWS = "E_NO_ROWS", "a header and nothing below it, or no table", "add one row a case"
    E_CASE_ID = (
        "E_CASE_ID",
        "a case id that stands twice, is blank, or has control characters",
        "make it unique and plain",
    )
    E_SPLIT_VALUE = (
        "E_SPLIT_VALUE",
        "a split other than train, validation, calibration and test, or some blank",
        "correct or clear the column",
    )
    E_LABEL_COLUMNS = (
        "E_LABEL_COLUMNS",
        "columns are missing, doubled, or cannot be told apart",
        "name or correct the columns",
    )
    E_LABEL_VALUE = (
        "E_LABEL_VALUE",
        "a label that is not 1, 0, blank or a word that was named",
        "correct it, or name the words (`data.positive_label`)",
    )
    E_LABEL_CONFLICT = (
        "E_LABEL_CONFLICT",
        "one image or place is labelled both malignant and benign",
        "keep the right row",
    )
    E_ONE_CLASS = (
        "E_ONE_CLASS",
        "a split or table has malignant or benign cases alone",
        "label more cases, or have splits drawn",
    )
    E_PATIENT_LEAK = "E_PATIENT_LEAK", "a patient is in several splits", "put all of a patient's cases in one split"
    # Models and this program.
    E_OUT_OF_ENVELOPE = (
        "E_OUT_OF_ENVELOPE",
        "the case is unlike all that the model was trained on",
        "use a model for such cases; the reason names the measure",
    )
    E_INTERNAL = "E_INTERNAL", "a fault of this program or of the machine", "report it with the row"
    # Warnings: the case is scored, and its row says so.
    W_TRAILING_BYTES = (
        "W_TRAILING_BYTES",
        "bytes after the image are ignored",
        "export the file again if they should mean something",
    )
    W_SUFFIX = (
        "W_SUFFIX",
        "the content is another format than the suffix says; the content is followed",
        "rename the file",
    )
    W_BITPIX = (
        "W_BITPIX",
        "two fields of the header disagree on the type; the data type is followed",
        "export the file again",
    )
    W_UNITS = "W_UNITS", "the unit is missing or implausible, and taken as millimetres or HU", "check the spacing"
    W_SPACING = "W_SPACING", "slices are not quite even, or a thickness is missing", "check the series"
    W_SHEAR = "W_SHEAR", "axes are not at right angles, as after a gantry tilt", "none is needed below the limit"
    W_GEOMETRY_MISSING = (
        "W_GEOMETRY_MISSING",
        "the format's default geometry is taken",
        "give no lesion centres for such a scan, or convert it",
    )
    W_AFFINE_DISAGREE = (
        "W_AFFINE_DISAGREE",
        "two descriptions of the geometry differ a little; the one named is followed",
        "check the export",
    )
    W_DUPLICATE_FILE = "W_DUPLICATE_FILE", "identical copies of a file", "remove them"
    W_DUPLICATE_ROW = "W_DUPLICATE_ROW", "a row repeats an earlier one and counts once", "remove it"
    W_DUPLICATE_CONTENT = (
        "W_DUPLICATE_CONTENT",
        "the same image and place as another case",
        "remove one, or give both one `patient_id`",
    )
    W_UNLABELLED = "W_UNLABELLED", "a blank label: counted, never trained on", "label it, if you can"
    W_LARGE = "W_LARGE", "more than half of the voxels that `preprocessing.limits` allows", "look whether it is meant"
    W_PADDING = "W_PADDING", "part of the region lies outside the image and is filled up", "check the lesion's centre"
    W_PHOTOMETRIC = "W_PHOTOMETRIC", "colours or an inverted grey scale were converted", "check the export"
    W_RESCALE_VARIES = "W_RESCALE_VARIES", "slices have different rescales; each got its own", "none is needed"
    W_CENTER_IN_AIR = (
        "W_CENTER_IN_AIR",
        "the surroundings of the lesion's centre are air",
        "check its coordinates and coordinate system",
    )
    W_BODY_PART = (
        "W_BODY_PART",
        "the header names another body part than those that the model was trained on",
        "use a model for that body part, or correct the header",
    )
    W_NEAR_ENVELOPE = (
        "W_NEAR_ENVELOPE",
        "near the border of what the model was trained on",
        "read its probability with care",
    )
    W_CANDIDATE_UNSCORED = (
        "W_CANDIDATE_UNSCORED",
        "some of a scan's candidates could not be scored, so that the scan's probability has bounds",
        "look at these candidates; their rows in `scores.csv` say why",
    )
