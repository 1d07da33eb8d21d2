"""Made-up searched scans for the tests of this room."""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.detection.searched_scan import ScoredPoint, SearchedScan, TrueLesion


def point(x, probability, *, y=0.0, z=0.0, diameter_mm=6.0):
    return ScoredPoint((float(x), float(y), float(z)), float(probability), float(diameter_mm))


def lesion(x, diameter_mm, *, y=0.0, z=0.0, ignore=False, **groups):
    return TrueLesion((float(x), float(y), float(z)), diameter_mm, ignore, groups)


def hand_made():
    """Four scans whose FROC is worked out by hand in ``test_luna16_rule``."""
    return (
        SearchedScan(
            "a",
            "p1",
            (lesion(0, 10.0), lesion(100, 6.0), lesion(200, None, ignore=True)),
            (
                point(0, 0.9, z=4.0),  # 4 mm from a centre whose radius is 5 mm
                point(1, 0.6),  # in the same lesion, less probable
                point(103, 0.8),  # 3 mm from a centre whose radius is 3 mm: not below it
                point(204, 0.7),  # in the ignored lesion, whose unknown diameter counts as 10 mm
            ),
        ),
        SearchedScan("b", "p2", (lesion(0, 8.0),), (point(3.9, 0.5), point(50, 0.4), point(60, 0.95))),
        SearchedScan("c", "p3", (), (point(0, 0.3),)),
        SearchedScan("d", "p3", (), ()),
    )


def simulated(patients=60, *, seed=0, false_positives=3.0, spread=1.0, overconfidence=1.0):
    """Patients with one to three lesions each in one or two scans, alike within a patient."""
    rng = np.random.default_rng(seed)
    scans = []
    for patient in range(patients):
        skill = spread * rng.normal()
        for number in range(1 + int(rng.random() < 0.3)):
            lesions, candidates = [], []
            for place in range(rng.integers(0, 3)):
                diameter = float(rng.uniform(4.0, 20.0))
                texture = "solid" if rng.random() < 0.7 else "ground-glass"
                lesions.append(lesion(100 * place, diameter, texture=texture))
                logit = 1.0 + skill + 0.1 * (diameter - 12.0) + rng.normal()
                if logit > -1.0:
                    where = 100 * place + rng.uniform(-0.4, 0.4) * diameter
                    candidates.append(point(where, _share(overconfidence * logit), diameter_mm=diameter + rng.normal()))
            for extra in range(rng.poisson(false_positives)):
                candidates.append(point(1000 + 50 * extra, _share(overconfidence * (-1.5 + rng.normal()))))
            scans.append(SearchedScan(f"s{patient}.{number}", f"p{patient}", tuple(lesions), tuple(candidates)))
    return tuple(scans)


def _share(logit):
    return float(1.0 / (1.0 + np.exp(-logit)))
