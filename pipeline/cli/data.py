"""Commands about cases: ``init``, ``demo-data``, ``import``, ``lesions`` and ``audit``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.errors import UsageError


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of your scans.")],
    table: Annotated[
        Path | None, typer.Option(help="Excel, CSV or TSV table; without it, one of the folder that names its scans.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Of the Excel table.")] = None,
    case: Annotated[str | None, typer.Option("--id", help="Column that names the scans.")] = None,
    image: Annotated[str | None, typer.Option(help="Column of paths to the scans, where there is one.")] = None,
    patient: Annotated[str | None, typer.Option(help="Column of patient ids.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the diagnosis.")] = None,
    positive: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="What malignant is called in the table or folders.")
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="What benign is called; the only other word by default.")
    ] = None,
    label_source: Annotated[
        str | None, typer.Option(help="Whose opinion or which test the labels are, as 'histology'.")
    ] = None,
    files: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Take only scans whose path fits, as '**/T1.mgz'.")
    ] = None,
    modality: Annotated[
        Literal["CT", "MR", "US", "XR", "mask", "other"] | None, typer.Option(help="Where the files do not say it.")
    ] = None,
    system: Annotated[
        Literal["RAS", "LPS"] | None, typer.Option(help="Of lesion centres in tables that do not say it.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of experiment and model; the folder's by default.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Copy this column of the table, whatever it holds.")
    ] = None,
    keep_ids: Annotated[
        bool, typer.Option("--keep-ids", help="Write patient ids of DICOM headers as they are, not as salted hashes.")
    ] = False,
    simulated: Annotated[bool, typer.Option("--simulated", help="The scans' intensities are simulated.")] = False,
) -> None:
    """Write a manifest and a configuration for a folder of scans: from its table, folder names, masks and headers."""
    from pipeline.cases.intake.assemble import IntakeOptions
    from pipeline.cases.label_words import LabelWords
    from pipeline.cases.lesions.lesion import ReadingOptions
    from pipeline.jobs.init import InitOptions
    from pipeline.jobs.init import init as job

    roles = {"id": case, "image": image, "patient": patient, "label": label}
    intake = IntakeOptions(
        table=table,
        sheet=sheet,
        files=files,
        columns={role: column for role, column in roles.items() if column is not None},
        words=LabelWords(tuple(positive or ()), tuple(negative or ())),
        keep=tuple(keep or ()),
        keep_ids=keep_ids,
        reading=ReadingOptions(system=system),
    )
    result = job(folder, InitOptions(intake, name, modality, label_source, simulated))
    print(result.summary)
    for line in result.missing:
        print(line, file=sys.stderr)
    print("next:", *(f"  {line}" for line in result.next_commands), sep="\n")


def demo_data(
    out: Annotated[Path, typer.Argument(help="New folder.")],
    cases: Annotated[int | None, typer.Option(min=1, help="How many; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    whole_scans: Annotated[
        int | None, typer.Option(metavar="N", help="Instead: N halves of a chest, to find the nodules in.")
    ] = None,
) -> None:
    """Write NIfTI scans with simulated intensities, from real nodule shapes and ratings, and their manifest."""
    from pipeline.datasets.demo import write_demo_data
    from pipeline.datasets.whole_scans.write import write_whole_scans

    if whole_scans is not None:
        if cases is not None:
            raise UsageError("--cases counts nodules in crops and --whole-scans scans; give one of them")
        table = write_whole_scans(out, scans=whole_scans, seed=seed)
        print(
            f"{table} and lesions.csv: real nodule shapes, ratings and patients (LIDC-IDRI, CC BY 3.0) in simulated "
            "chests; simulated intensities"
        )
        return
    manifest = write_demo_data(out, cases=cases, seed=seed)
    print(f"{manifest}: real nodule shapes, ratings and patients (LIDC-IDRI, CC BY 3.0); simulated intensities")


def import_medmnist(
    file: Annotated[Path, typer.Argument(help="A MedMNIST .npz file.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    positive: Annotated[int, typer.Option(min=0, max=1, help="Which original label means malignant.")],
) -> None:
    """Turn a binary MedMNIST set, 2D or 3D, into scans and a manifest with the official splits."""
    from pipeline.datasets.import_medmnist import import_medmnist as convert

    print(f"manifest: {convert(file, out, positive=positive)} (MedMNIST names no patients: every case counts as one)")


def import_lidc(
    dicom_root: Annotated[Path, typer.Argument(help="Your TCIA download of LIDC-IDRI.")],
    out: Annotated[Path, typer.Argument(help="Where the manifest goes.")],
    whole_scans: Annotated[
        bool, typer.Option("--whole-scans", help="Instead scans.csv and lesions.csv, to train a detector on.")
    ] = False,
    least_readers: Annotated[
        int | None,
        typer.Option(min=1, max=4, help="Of whole scans: ignore a nodule that fewer readers marked; 2 by default."),
    ] = None,
) -> None:
    """Find lesion-centred cases in a TCIA download of LIDC-IDRI, from the embedded annotations."""
    from pipeline.datasets.import_lidc import import_lidc as convert

    if whole_scans:
        from pipeline.datasets.import_lidc_scans import LEAST_READERS, import_lidc_scans

        tables = import_lidc_scans(dicom_root, out, least_readers=least_readers or LEAST_READERS)
        print(f"{tables.summary} (label: radiologists' opinion, not pathology)")
        return
    if least_readers is not None:
        raise UsageError("--least-readers goes with --whole-scans; a manifest of nodules has those of every reader")
    print(f"manifest: {convert(dicom_root, out)} (label: radiologists' opinion, not pathology)")


def import_luna16(
    root: Annotated[Path, typer.Argument(help="Your download of LUNA16: subset0 to subset9, annotations.csv.")],
    out: Annotated[Path, typer.Argument(help="That folder or one above it; gets scans.csv and lesions.csv.")],
) -> None:
    """Make scans.csv and lesions.csv of LUNA16's whole scans, nodules and ten folds, to train a detector on."""
    from pipeline.datasets.import_luna16 import import_luna16 as convert

    print(f"{convert(root, out).summary} (label: radiologists' opinion, from LIDC-IDRI, not pathology)")


def lesions(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Masks, DICOM SEG, RTSTRUCT or SR, Slicer's markups, LUNA16 or other tables, LIDC's XML; or folders.",
        ),
    ],
    images: Annotated[str, typer.Option("--for", metavar="MANIFEST", help="Manifest, folder of scans, or one scan.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The new manifest; <manifest>-lesions.csv beside it by default.")
    ] = None,
    labels: Annotated[
        Literal["auto", "components", "values"],
        typer.Option(help="One lesion of a mask: a connected component, or all of a label value's voxels."),
    ] = "auto",
    only: Annotated[
        str | None, typer.Option(metavar="N,N", help="Label values, segments or ROI numbers that are lesions.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Take probability maps, from this value on as the lesion.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="RAS|LPS", help="Of tables and markups that do not say theirs.")
    ] = None,
    index_base: Annotated[
        int | None, typer.Option(min=0, max=1, help="Of voxel indices in tables: is the first voxel 0 or 1?")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let new centres replace the manifest's.")] = False,
) -> None:
    """Write a manifest with the lesion centres and diameters that readers have marked: one row a lesion."""
    from pipeline.jobs.lesions import LesionsRequest, local, reading_options
    from pipeline.jobs.lesions import lesions as job

    options = reading_options(labels=labels, only=only, threshold=threshold, system=system, index_base=index_base)
    request = LesionsRequest(sources=sources, images=local(images), out=out, replace_centers=replace, options=options)
    result = job(request)
    print(result.summary)
    raise typer.Exit(int(not result.is_complete))


def audit(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Manifests or folders of scans, configurations, model directories or model URIs."
        ),
    ],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything that was found here.")] = None,
) -> None:
    """Find patients, scans and look-alike images that splits or tables share, and contradictory labels; then exit 1."""
    from pipeline.jobs.audit import audit as job

    result = job(inputs, json_file=json_file)
    print(result.summary)
    raise typer.Exit(int(bool(result.leaks or result.conflicts)))
