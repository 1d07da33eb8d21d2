"""Commands before and during a training: ``plan``, ``check``, ``train`` and ``search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import LesionSources, Overrides


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

    outlook = job(manifest, config_path=config, assumed=Assumed(auroc=auroc, alike=alike), json_file=json_file)
    print(outlook.summary)


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


def pretrain(
    config: Annotated[
        Path, typer.Argument(help="The configuration that will be trained; it names training.auxiliary.")
    ],
    out: Annotated[Path, typer.Option(help="File of weights to write, for network.weights.")],
    overrides: Overrides = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Of the training: every labelled patient is then left out.")
    ] = None,
) -> None:
    """Learn readings from cases that the training is neither calibrated nor judged on; writes weights to start from."""
    from pipeline.jobs.pretrain import pretrain as job

    result = job(config, overrides or [], out=out, folds=folds)
    print(result.summary)
    raise typer.Exit(int(bool(result.rejected)))


def show_config(
    config: Annotated[Path, typer.Argument(help="A configuration, such as configs/demo.yaml.")],
    overrides: Overrides = None,
) -> None:
    """Print a configuration with every key, those with their defaults too; `train` takes what is printed."""
    from pipeline.jobs.show_config import resolved_config

    print(resolved_config(config, overrides or []), end="")


def search(
    config: Annotated[Path, typer.Argument(help="A configuration that declares search.ranges.")],
    overrides: Overrides = None,
) -> None:
    """Find settings that do best on the validation split; run it again to go on, or several times at once."""
    from pipeline.jobs.search import search as job

    print(job(config, overrides or []).summary)
