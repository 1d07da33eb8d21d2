#!/usr/bin/env python3
"""Does a classifier of lesions bear a centre that is a few millimetres off, as a detector's centres are?

    python benchmarks/centre_jitter.py MODEL [MODEL ...] --manifest MANIFEST [--draws 3] [--seed 0]

Moves the centre of every labelled lesion of the manifest's test split (all of them where it names no split) by 0 to
6 mm in a direction drawn anew, scores it, and prints the AUROC of each model at each distance, with its interval by
patient at the first draw and the range of all draws. A lesion of a patient that a model has seen is left out. Of
several models the first is the baseline. Prints last one JSON line; ``ratio`` is the last model's AUROC at 4 mm over
its own at 0 mm.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.cases.case import Case
from pipeline.cases.manifest import read_manifest
from pipeline.evaluation.intervals.bootstrap import auroc_interval
from pipeline.evaluation.metrics import auroc
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer

DISTANCES_MM = (0, 1, 2, 3, 4, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="model directories")
    parser.add_argument("--manifest", required=True, type=Path)
    parser.add_argument("--draws", type=int, default=3, help="of directions, at each distance")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    table = Table("model", *(f"{mm} mm" for mm in DISTANCES_MM), title="AUROC at moved centres")
    figures: dict[str, dict[str, float]] = {}
    for folder in args.models:
        model = load_model(folder)
        manifest = read_manifest(args.manifest)
        cases = judged_cases(manifest.cases, model.description.patients.seen_patients)
        scorer = Scorer(model, root=manifest.root)
        cells, means = [], {}
        for distance in DISTANCES_MM:
            rng = np.random.default_rng(np.random.SeedSequence((args.seed, distance)))
            draws = args.draws if distance else 1
            scored = [score(scorer, [moved(case, distance, rng) for case in cases]) for _ in range(draws)]
            areas = [auroc(labels, values) for labels, values, _ in scored]
            interval = auroc_interval(*scored[0])
            spread = f", draws {min(areas):.3f}-{max(areas):.3f}" if draws > 1 else ""
            cells.append(f"{np.mean(areas):.3f} ({interval.lower:.3f}-{interval.upper:.3f}{spread})")
            means[f"{distance} mm"] = float(np.mean(areas))
        patients = len({case.patient_id for case in cases})
        table.add_row(f"{model.label}, {len(cases)} lesions of {patients} patients", *cells)
        figures[model.label] = means
    Console(width=200).print(table)
    last = list(figures.values())[-1]
    print(json.dumps({"ratio": last["4 mm"] / last["0 mm"], "auroc": figures}))


def judged_cases(cases: Sequence[Case], seen_patients: object) -> list[Case]:
    """Labelled lesions with a centre, of the test split where one is named, of patients that the model has not seen."""
    assert callable(seen_patients)
    named = any(case.split is not None for case in cases)
    wanted = [
        case
        for case in cases
        if case.label is not None and case.center_mm is not None and (not named or case.split == "test")
    ]
    seen = seen_patients([str(case.patient_id) for case in wanted])
    return [case for case in wanted if str(case.patient_id) not in seen]


def moved(case: Case, distance_mm: float, rng: np.random.Generator) -> Case:
    """The lesion with its centre moved by a distance in a direction that is uniform on the sphere."""
    assert case.center_mm is not None
    direction = rng.normal(size=3)
    x, y, z = np.array(case.center_mm) + direction / np.linalg.norm(direction) * distance_mm
    return replace(case, center_mm=(float(x), float(y), float(z)))


def score(scorer: Scorer, cases: Sequence[Case]) -> tuple[list[int], list[float], list[str]]:
    """Labels, probabilities and patients of the lesions that could be scored."""
    rows = list(score_cases(scorer, cases))
    kept = [(case, row.probability) for case, row in zip(cases, rows, strict=True) if row.probability is not None]
    return (
        [int(case.label or 0) for case, _ in kept],
        [float(probability) for _, probability in kept],
        [str(case.patient_id) for case, _ in kept],
    )


if __name__ == "__main__":
    main()
