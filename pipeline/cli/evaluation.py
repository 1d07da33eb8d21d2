"""Commands that judge models and decide which one is used, and ``ui``, which shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pipeline.errors import UsageError


def evaluate(
    out: Annotated[Path, typer.Option(help="New folder for predictions, figures and the report.")],
    model: Annotated[str | None, typer.Argument(help="Model directory or MLflow model URI.")] = None,
    manifest: Annotated[Path | None, typer.Argument(help="Labelled cases; of a detector the table of scans.")] = None,
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
    classifier: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Of a detector: the classifier of the lesions that it finds.")
    ] = None,
) -> None:
    """Judge a model on labelled cases, a detector on whole scans, or predictions made before."""
    from pipeline.jobs.evaluate import EvaluateOptions, evaluate_model
    from pipeline.jobs.evaluate_detector import is_detector_name
    from pipeline.jobs.evaluate_predictions import evaluate_predictions

    if prevalence is not None and not 0.0 < prevalence < 1.0:
        raise UsageError(f"evaluate: --prevalence {prevalence:g} is not in (0, 1); give a share, as 0.05")
    if predictions is not None and model is None and manifest is None:
        if pictures:
            raise UsageError("evaluate: --predictions has no images to show; leave --pictures out")
        print(evaluate_predictions(predictions, out, prevalence=prevalence, readers=readers).summary)
    elif predictions is None and model is not None and manifest is not None:
        if is_detector_name(model):
            if prevalence is not None or readers is not None:
                raise UsageError("evaluate: --prevalence and --readers are of classifiers; leave them out")
            _judge_detector(model, manifest, out, classifier=classifier, pictures=pictures)
        if classifier is not None:
            raise UsageError(f"evaluate: {model} is a classifier itself, so --classifier has no meaning; leave it out")
        result = evaluate_model(
            model, manifest, out, EvaluateOptions(champion, pictures, prevalence=prevalence, readers=readers)
        )
        print(result.summary)
        raise typer.Exit(int(bool(result.rejected)))
    else:
        raise UsageError("evaluate: give MODEL and MANIFEST, or --predictions FILE, not both")


def _judge_detector(model: str, scans: Path, out: Path, *, classifier: str | None, pictures: bool) -> NoReturn:
    from pipeline.jobs.evaluate_detector import DetectorOptions, evaluate_detector

    result = evaluate_detector(model, scans, out, DetectorOptions(classifier, pictures=pictures))
    print(result.summary)
    raise typer.Exit(int(bool(result.rejected)))


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

    result = job(model, manifest, prevalence=prevalence)
    print(result.summary)
    print(f"model: {result.model_uri}")
    raise typer.Exit(int(bool(result.rejected)))


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

    decision = job(model, on, PromoteOptions(force, reason, policy, prevalence))
    raise typer.Exit(int(not decision.promoted))


def anchor(
    model: Annotated[str, typer.Argument(help="A registered version: models:/NAME@champion or models:/NAME/3.")],
    reason: Annotated[str, typer.Option(help="Why; recorded.")],
) -> None:
    """Name the version that no challenger may be worse than; the first champion is it until then."""
    from pipeline.jobs.promote import anchor as job

    print(f"{job(model, reason=reason)} is the anchor: every challenger must be no worse than it, too")


def rollback(name: Annotated[str, typer.Argument(help="Name of the registered model.")]) -> None:
    """Give `champion` back to the version that the present one replaced."""
    from pipeline.jobs.promote import rollback as job

    print(job(name))


def ui(port: Annotated[int, typer.Option(min=1024, max=65535)] = 5000) -> None:
    """Serve the MLflow UI on this machine only."""
    from pipeline.jobs.ui import ui as job

    job(port)
