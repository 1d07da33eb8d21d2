"""The command ``malignancy``: parse, call a job, exit code. Jobs are imported when they are called."""

from __future__ import annotations

import errno
import socket
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline import __version__
from pipeline.console import one_line, plain_output, print_summary
from pipeline.errors import ConfigError, ModelError, PipelineError, TableError, UsageError
from pipeline.imaging.lean_monai import install as install_lean_monai
from pipeline.redaction import redact

_CTRL_C = 130  # what typer makes of a KeyboardInterrupt
_INTERRUPTED = "interrupted; what was finished before is kept"
# typer carries click inside itself from some release on; the base class is the same in both.
_CommandLineError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
importers = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Turn a public dataset into a manifest.")
app.add_typer(importers, name="import")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Overrides of the configuration.")
]

LesionSources = Annotated[
    list[Path] | None,
    typer.Option("--lesions", metavar="SOURCE", help="Take lesion centres from a file or folder of annotations."),
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"malignancy-pipeline {__version__}")
        raise typer.Exit


@app.callback()
def malignancy(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Binary malignancy classification of medical images, with calibrated probabilities.

    Research use; not a medical device.
    """


@app.command()
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
    job(folder, InitOptions(intake, name, modality, label_source, simulated))


@app.command("demo-data")
def demo_data(
    out: Annotated[Path, typer.Argument(help="New folder.")],
    cases: Annotated[int | None, typer.Option(min=1, help="How many; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Write NIfTI scans with simulated intensities, from real nodule shapes and ratings, and their manifest."""
    from pipeline.jobs.demo_data import demo_data as job

    job(out, cases=cases, seed=seed)


@importers.command("medmnist")
def import_medmnist(
    file: Annotated[Path, typer.Argument(help="A MedMNIST .npz file.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    positive: Annotated[int, typer.Option(min=0, max=1, help="Which original label means malignant.")],
) -> None:
    """Turn a binary MedMNIST set, 2D or 3D, into scans and a manifest with the official splits."""
    from pipeline.jobs.imports import medmnist as job

    job(file, out, positive=positive)


@importers.command("lidc")
def import_lidc(
    dicom_root: Annotated[Path, typer.Argument(help="Your TCIA download of LIDC-IDRI.")],
    out: Annotated[Path, typer.Argument(help="Where the manifest goes.")],
) -> None:
    """Find lesion-centred cases in a TCIA download of LIDC-IDRI, from the embedded annotations."""
    from pipeline.jobs.imports import lidc as job

    job(dicom_root, out)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A configuration, such as configs/demo.yaml.")],
    overrides: Overrides = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="One network a fold, judged out of fold; the model is all of them.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run that was killed: its folder or MLflow run id.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Print and track where the time goes.")] = False,
) -> None:
    """Train, calibrate, evaluate, track and register a model; the last line names it."""
    from pipeline.jobs.train import train as job

    result = job(config, overrides or [], folds=folds, resume=resume, profile=profile)
    if result is not None:
        print(result.summary)
        print(f"model: {result.model_uri}")
        raise typer.Exit(int(bool(result.rejected) or not result.is_calibrated))


@app.command("config")
def config_command(
    config: Annotated[Path, typer.Argument(help="A configuration, such as configs/demo.yaml.")],
    overrides: Overrides = None,
) -> None:
    """Print a configuration with every key, those with their defaults too; `train` takes what is printed."""
    from pipeline.jobs.show_config import resolved_config

    print(resolved_config(config, overrides or []), end="")


@app.command()
def search(
    config: Annotated[Path, typer.Argument(help="A configuration that declares search.ranges.")],
    overrides: Overrides = None,
) -> None:
    """Find settings that do best on the validation split; run it again to go on, or several times at once."""
    from pipeline.jobs.search import search as job

    raise typer.Exit(job(config, overrides or []))


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option(help="New folder for predictions, figures and the report.")],
    model: Annotated[str | None, typer.Argument(help="Model directory or MLflow model URI.")] = None,
    manifest: Annotated[Path | None, typer.Argument(help="Labelled cases.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="A predictions.parquet, instead of MODEL and MANIFEST.")
    ] = None,
    champion: Annotated[bool, typer.Option(help="Judge the registered champion on the same cases too.")] = True,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Show the most confident mistakes, images of patients, in the report.")
    ] = False,
    prevalence: Annotated[
        float | None, typer.Option(help="Share of malignant cases in use: restates net benefit, PPV and NPV for it.")
    ] = None,
    readers: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Readers' scores of the cases: case_id, reader, score.")
    ] = None,
) -> None:
    """Judge a model on labelled cases, or judge predictions made before."""
    from pipeline.jobs.evaluate import EvaluateOptions, evaluate_model
    from pipeline.jobs.evaluate_predictions import evaluate_predictions

    if prevalence is not None and not 0.0 < prevalence < 1.0:
        raise UsageError(f"evaluate: --prevalence {prevalence:g} is not in (0, 1); give a share, as 0.05")
    if predictions is not None and model is None and manifest is None:
        if pictures:
            raise UsageError("evaluate: --predictions has no images to show; leave --pictures out")
        print(evaluate_predictions(predictions, out, prevalence=prevalence, readers=readers).summary)
    elif predictions is None and model is not None and manifest is not None:
        result = evaluate_model(
            model, manifest, out, EvaluateOptions(champion, pictures, prevalence=prevalence, readers=readers)
        )
        print(result.summary)
        raise typer.Exit(int(bool(result.rejected)))
    else:
        raise UsageError("evaluate: give MODEL and MANIFEST, or --predictions FILE, not both")


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="Model directory or MLflow model URI; several, with commas: ensemble.")],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="Manifest, folder searched for scans, one scan, or a URL of these.")
    ],
    out: Annotated[Path, typer.Option(help="Output folder; an earlier run into it is continued.")],
    engine: Annotated[Literal["local", "ray"], typer.Option(help="ray: RAY_ADDRESS, or a local cluster.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes or actors; one per core by default.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Cases that go through the network together.")] = 8,
    backend: Annotated[
        Literal["eager", "bf16", "onnx", "openvino"], typer.Option(help="How the network runs.")
    ] = "eager",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one scan may take to be read.")] = 300.0,
    restart: Annotated[bool, typer.Option("--restart", help="Set aside the rows that --out holds.")] = False,
    rescore_changed: Annotated[
        bool, typer.Option("--rescore-changed", help="Score inputs again that changed since they were scored.")
    ] = False,
    max_failure_rate: Annotated[
        float,
        typer.Option(min=0, max=1, help="Stop, exit 3, when a larger share of 50 cases or more is not scored."),
    ] = 1.0,
    accept_rejects: Annotated[
        float, typer.Option(min=0, max=1, help="Exit 0 up to this share of cases that are not scored.")
    ] = 0.0,
    min_age: Annotated[float, typer.Option(min=0, help="Leave files younger than these seconds for later.")] = 0.0,
    drift_alert: Annotated[
        float,
        typer.Option(min=0, help="Population stability index beyond chance that makes a clear shift an alert."),
    ] = 0.1,
    lesions: LesionSources = None,
    track: Annotated[bool, typer.Option(help="Log the run to MLflow.")] = True,
) -> None:
    """Score every scan: one row each, with a calibrated probability or the reason why there is none."""
    from pipeline.scoring.worker_server import start_server_early

    if engine == "local":
        start_server_early(model, source, out, restart=restart)
    from pipeline.jobs.score import ScoreOptions
    from pipeline.jobs.score import score as job

    options = ScoreOptions(
        engine=engine,
        workers=workers,
        batch_size=batch_size,
        backend=backend,
        timeout_seconds=timeout,
        restart=restart,
        rescore_changed=rescore_changed,
        max_failure_rate=max_failure_rate,
        min_age_seconds=min_age,
        drift_alert=drift_alert,
        lesions=tuple(lesions or ()),
        track=track,
    )
    result = job(model, source, out, options)
    print_summary(result.summary_text)
    raise typer.Exit(int(result.summary["unscored_share"] > accept_rejects))


@app.command()
def plan(
    manifest: Annotated[Path, typer.Argument(help="Labelled cases; no scan is opened.")],
    config: Annotated[
        Path | None, typer.Option(help="Take splits, folds, members and covariates from this configuration.")
    ] = None,
    auroc: Annotated[float, typer.Option(help="Expected of the model.")] = 0.85,
    alike: Annotated[
        float, typer.Option("--within-patient", help="Correlation of two cases of a patient, 0 to 1.")
    ] = 0.3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything that was found here.")] = None,
) -> None:
    """Say, before any training, what so many cases can train and what their test split can show."""
    from pipeline.evaluation.planning.expected_precision import Assumed
    from pipeline.jobs.plan import plan as job

    job(manifest, config_path=config, assumed=Assumed(auroc=auroc, alike=alike), json_file=json_file)


@app.command()
def check(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A manifest, a folder searched for scans, or one scan.")
    ],
    model: Annotated[str | None, typer.Option(help="Check against this model's input contract and envelope.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything that was found here.")] = None,
    lesions: LesionSources = None,
) -> None:
    """Look at every case before spending compute; exit 1 when one would be rejected."""
    from pipeline.jobs.check import check as job

    result = job(source, model_name=model, json_file=json_file, lesions=lesions or ())
    print(result.summary)
    raise typer.Exit(int(bool(result.faults or result.rejected)))


@app.command()
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


@app.command()
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
    raise typer.Exit(job(request))


@app.command()
def recalibrate(
    model: Annotated[str, typer.Argument(help="Model directory or MLflow model URI.")],
    manifest: Annotated[Path, typer.Argument(help="Local labelled cases of patients that the model has not seen.")],
    prevalence: Annotated[
        float | None,
        typer.Option(help="Share of malignant cases where the model will be used, when the manifest's is another."),
    ] = None,
) -> None:
    """Refit the calibration intercept and the thresholds on local cases, into a new model version."""
    from pipeline.jobs.recalibrate import recalibrate as job

    raise typer.Exit(job(model, manifest, prevalence=prevalence))


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="A registered version: models:/NAME@challenger or models:/NAME/3.")],
    on: Annotated[Path, typer.Option(help="Manifest of the locked, labelled cases.")],
    force: Annotated[bool, typer.Option("--force", help="Promote whatever the gate says; needs --reason.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is forced; recorded.")] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML of the gate's limits, as `sensitivity_margin: 0.05`.")
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(help="Share of malignant cases where the models are used, when the manifest's is another."),
    ] = None,
) -> None:
    """Let the gate compare a version with champion and anchor; it becomes champion when every condition holds."""
    from pipeline.jobs.promote import PromoteOptions
    from pipeline.jobs.promote import promote as job

    raise typer.Exit(job(model, on, PromoteOptions(force, reason, policy, prevalence)))


@app.command()
def anchor(
    model: Annotated[str, typer.Argument(help="A registered version: models:/NAME@champion or models:/NAME/3.")],
    reason: Annotated[str, typer.Option(help="Why; recorded.")],
) -> None:
    """Name the version that no challenger may be worse than; the first champion is it until then."""
    from pipeline.jobs.promote import anchor as job

    job(model, reason=reason)


@app.command()
def rollback(name: Annotated[str, typer.Argument(help="Name of the registered model.")]) -> None:
    """Give `champion` back to the version that the present one replaced."""
    from pipeline.jobs.promote import rollback as job

    job(name)


@app.command()
def ui(port: Annotated[int, typer.Option(min=1024, max=65535)] = 5000) -> None:
    """Serve the MLflow UI on this machine only."""
    from pipeline.jobs.ui import ui as job

    job(port)


def main() -> None:
    """Run the command; 0 done, 1 done with rejected cases, 2 wrong usage or table, 3 could not finish."""
    install_lean_monai()
    with plain_output():
        try:
            code = run(sys.argv[1:])
        except Exception:  # noqa: BLE001  # a fault of ours must not look like exit 1, "done, but some were rejected"
            print(redact(traceback.format_exc()), end="", file=sys.stderr)
            code = 3
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every foreseen error is one line on stderr."""
    with plain_output():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        code: int = app(arguments, prog_name="malignancy", standalone_mode=False) or 0
        return code if code != _CTRL_C else _fail(_INTERRUPTED, 3)
    except _CommandLineError as error:
        text = error.format_message()
        if "\n" in text:  # the help, which a command without arguments prints
            print(text, file=sys.stderr)
            return 2
        return _fail(f"{text.rstrip('.')}; `malignancy --help` lists commands and options", 2)
    except (UsageError, ModelError) as error:
        return _fail(error, 2)
    except PipelineError as error:
        return _fail(error, 3)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(_INTERRUPTED, 3)
    except FileExistsError as error:
        where = f"{error.filename}: exists already; choose another name" if error.filename else error
        return _fail(where, 2)
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return _fail(f"network: {error.strerror or error}; check the address, the network and the server", 3)
        where = error.filename or "disk"
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT):
            return _fail(f"{where}: {error.strerror}; choose another path", 2)
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check it"
        return _fail(f"{where}: {error.strerror}; {remedy} or choose another folder", 3)


def _fail(message: object, code: int) -> int:
    several = isinstance(message, TableError | ConfigError)  # a line for each fault of a table or configuration
    print(redact(f"malignancy: {message if several else one_line(message)}"), file=sys.stderr)
    return code
