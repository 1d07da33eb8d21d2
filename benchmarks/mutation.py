#!/usr/bin/env python3
"""Whether the tests would notice a mistake: small changes of the code, one at a time, and the tests of each module.

    python benchmarks/mutation.py [--modules gate sink ...] [--count N] [--seed N] [--timeout SECONDS]

The repository's files are copied to a temporary folder, and only the copy is changed. A change is drawn with the seed
from all that a module has room for: a comparison's boundary, an arithmetic or logical operator, a constant, a dropped
``not``, a removed statement or raise, a returned None. It is killed when a quick test of the module fails or takes too
long. Prints the changes that survived, a line a module, and last one JSON line. A survivor may be equivalent: a change
that no test could notice.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# By room: the modules, and the test files that answer for each.
ROOMS: dict[str, dict[str, str]] = {
    "statistics": {
        "evaluation/arrays": "evaluation/test_metrics evaluation/test_intervals evaluation/test_predictions",
        "evaluation/calibration": "evaluation/test_calibration evaluation/test_calibration_ladder",
        "evaluation/calibration_curve": "evaluation/test_calibration_curve",
        "evaluation/calibration_error": (
            "evaluation/test_metrics evaluation/test_details evaluation/test_patient_labels"
        ),
        "evaluation/calibration_ladder": "evaluation/test_calibration_ladder",
        "evaluation/calibration_outcome": "evaluation/test_calibration_outcome",
        "evaluation/patient_labels": "evaluation/test_patient_labels",
        "evaluation/saturation": "evaluation/test_saturation",
        "evaluation/clustered": "evaluation/test_intervals evaluation/test_gate evaluation/test_evaluate_predictions",
        "evaluation/conformal": "evaluation/test_conformal",
        "evaluation/covariates": "evaluation/test_covariate_term",
        "evaluation/decision_curve": "evaluation/test_decision_curve",
        "evaluation/intervals": "evaluation/test_intervals evaluation/test_evaluate_predictions",
        "evaluation/metrics": "evaluation/test_metrics evaluation/test_intervals",
        "evaluation/operating_points": "evaluation/test_operating_points",
        "evaluation/prevalence": "evaluation/test_evaluate_predictions evaluation/test_local_recalibration",
        "evaluation/resampling": "evaluation/test_intervals",
        "evaluation/structural": "evaluation/test_intervals",
    },
    "gate": {"evaluation/gate": "evaluation/test_gate", "evaluation/decision": "evaluation/test_gate"},
    "sink": {
        "scoring/lock": "scoring/test_sink",
        "scoring/rows": "scoring/test_sink scoring/test_scorer",
        "scoring/sink": "scoring/test_sink",
    },
    "cache": {"cases/cache": "cases/test_cache"},
    "reading": {
        "imaging/dicom/geometry": "imaging/dicom/test_dicom imaging/dicom/test_dicom_mixture",
        "imaging/nifti/geometry": "imaging/nifti/test_nifti_reading",
        "imaging/nifti/scan": "imaging/nifti/test_nifti_reading imaging/nifti/test_nifti_faults",
    },
}
BOUNDARIES = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
Mutant = tuple[int, int, str]  # bytes of a source from the first to the second place, and what replaces them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--modules", nargs="+", metavar="NAME", help="rooms, or words in a module's path; all by default"
    )
    parser.add_argument("--count", type=int, default=10, help="changes a module, at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (%(default)s)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for the tests of a change (%(default)s)")
    args = parser.parse_args()
    chosen = [
        (room, module, tests)
        for room, modules in ROOMS.items()
        for module, tests in modules.items()
        if not args.modules or any(word == room or word in module for word in args.modules)
    ]
    if not chosen:
        parser.error(f"--modules: {' '.join(args.modules)} names none; rooms are {', '.join(ROOMS)}")
    counts = {room: {"mutants": 0, "killed": 0} for room, _, _ in chosen}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "copy"
        copy_repository(place)
        for room, module, tests in chosen:
            tried, killed = try_module(place, module, tests, count=args.count, seed=args.seed, timeout=args.timeout)
            counts[room]["mutants"] += tried
            counts[room]["killed"] += killed
            print(f"{room}: {module}: {killed} of {tried} killed", flush=True)
    print(json.dumps(counts))


def copy_repository(place: Path) -> None:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)


def try_module(place: Path, module: str, tests: str, *, count: int, seed: int, timeout: float) -> tuple[int, int]:
    """How many changes of a module were tried and killed; prints each that survived."""
    path = place / "pipeline" / f"{module}.py"
    files = [f"tests/{name}.py" for name in tests.split()]
    source = path.read_bytes()
    if not passes(place, files, timeout):
        raise SystemExit(f"{module}: its tests fail, or take over {timeout:g} s, without any change")
    found = sorted(set(mutants(source)))
    drawn = random.Random(f"{seed} {module}").sample(found, min(count, len(found)))
    killed = 0
    for start, end, text in drawn:
        changed = source[:start] + text.encode() + source[end:]
        path.write_bytes(changed)
        if passes(place, files, timeout):
            before, after = (code.decode().splitlines(keepends=True) for code in (source, changed))
            print("survived:\n" + "".join(difflib.unified_diff(before, after, module, module, n=1)), flush=True)
        else:
            killed += 1
    path.write_bytes(source)
    return len(drawn), killed


def passes(place: Path, tests: list[str], timeout: float) -> bool:
    """Whether the quick tests pass in time."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    silent = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=silent, stderr=silent, start_new_session=True
    ) as process:
        try:
            return process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False


def mutants(source: bytes) -> Iterator[Mutant]:
    """All changes that a source has room for; annotations, docstrings and the words of errors have none."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        for text in replacements(node):
            assert isinstance(node, ast.expr | ast.stmt)
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            if source[start:end] != text.encode():
                yield start, end, text
        skipped = {"annotation", "returns", "decorator_list"}
        if not isinstance(node, ast.Raise | ast.JoinedStr):
            for name, value in ast.iter_fields(node):
                children = value if isinstance(value, list) else [value]
                pending += [each for each in children if isinstance(each, ast.AST) and name not in skipped]


def replacements(node: ast.AST) -> Iterator[str]:
    """What could stand in a node's place."""
    changed = copy.deepcopy(node)
    match node, changed:
        case ast.Compare(ops=[operator]), ast.Compare() if type(operator) in BOUNDARIES:
            changed.ops = [BOUNDARIES[type(operator)]()]
            yield ast.unparse(changed)
        case ast.BinOp(op=operator), ast.BinOp() if type(operator) in ARITHMETIC and not is_text(node):
            changed.op = ARITHMETIC[type(operator)]()
            yield ast.unparse(changed)
        case ast.BoolOp(op=operator), ast.BoolOp():
            changed.op = ast.And() if isinstance(operator, ast.Or) else ast.Or()
            yield f"({ast.unparse(changed)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand), _:
            yield f"({ast.unparse(operand)})"
        case ast.Constant(value=bool(value)), _:
            yield str(not value)
        case ast.Constant(value=int(value) | float(value)), _:
            yield repr(value + 1 if isinstance(value, int) else value * 2 or 1.0)
        case ast.Return(value=ast.expr()), _:
            yield "return None"
        case ((ast.Raise() | ast.AugAssign() | ast.Expr(value=ast.Call())), _):
            yield "pass"


def is_text(node: ast.BinOp) -> bool:
    parts = (node.left, node.right)
    return any(isinstance(each, ast.JoinedStr) or isinstance(getattr(each, "value", None), str) for each in parts)


if __name__ == "__main__":
    main()
