"""How often calibration is called shown, not shown or refuted, and what the gate then lets pass."""

import pytest
from calibration_studies import TRUTHS, error_rates

MATTERS_NOT = ("perfect", "intercept 0.1", "slope 0.9")


def test_large_studies_show_what_does_not_matter_and_refute_what_does():
    for name in (*MATTERS_NOT, "intercept 0.4", "slope 0.6", "slope 1.5"):
        found = error_rates(studies=4, patients=6000, each=1, truth=TRUTHS[name])
        assert found["shown" if name in MATTERS_NOT else "refuted"] >= 3 / 4, (name, found)


def test_a_curve_that_is_wrong_although_slope_and_intercept_are_right_is_refuted():
    assert error_rates(studies=4, patients=20_000, each=1, truth=TRUTHS["bent"])["refuted"] >= 3 / 4


@pytest.mark.parametrize("each", [1, 3])
def test_a_small_study_shows_nothing_and_refutes_no_perfect_model_for_noise(each):
    found = error_rates(studies=100, patients=80, each=each, truth=TRUTHS["perfect"])
    assert found["shown"] == 0.0
    assert found["refuted"] <= 0.02
    assert found["passes"] >= 0.9


def test_the_gate_notices_a_fault_that_it_cannot_refute():
    found = error_rates(studies=50, patients=500, each=1, truth=TRUTHS["intercept 0.4"])
    assert found["refuted"] <= 0.6
    assert found["passes"] <= 0.4
    assert found["shown"] == 0.0


@pytest.mark.campaign
def test_error_rates_of_the_three_outcomes():
    print("\n| cases | patients | truth | shown | not shown | refuted | gate's condition holds |\n" + "|---" * 7 + "|")
    sizes = [(80, 1), (80, 3), (168, 1), (56, 3), (500, 1), (167, 3), (2000, 1), (667, 3), (20_000, 1), (6667, 3)]
    for patients, each in sizes:
        studies = 250 if patients * each < 10_000 else 40
        for name, truth in TRUTHS.items():
            found = error_rates(studies=studies, patients=patients, each=each, truth=truth)
            row = " | ".join(f"{share:.3f}" for share in found.values())
            print(f"| {patients * each} | {patients} | {name} | {row} |", flush=True)
            if name in MATTERS_NOT:
                assert found["refuted"] <= 0.03
            else:
                assert found["shown"] <= 0.05
            if patients * each >= 20_000:
                assert found["shown" if name in MATTERS_NOT else "refuted"] >= 0.95
            if name == "perfect":
                assert found["passes"] >= 0.9
