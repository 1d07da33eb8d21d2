"""The gate's limits: what the defaults are, and what a file may say."""

import pytest

from pipeline.config.file import load_gate_policy
from pipeline.config.gate_policy import GatePolicy
from pipeline.errors import ConfigError


def test_defaults_are_the_documented_ones():
    policy = GatePolicy()
    assert (policy.auroc_margin, policy.sensitivity_margin, policy.specificity_margin) == (0.02, 0.02, 0.02)
    assert (policy.referred_margin, policy.alpha, policy.least_power, policy.prevalence) == (0.05, 0.05, 0.8, None)
    assert (policy.expected_auroc, policy.expected_sensitivity, policy.expected_correlation) == (0.85, 0.9, 0.8)
    assert (policy.patients_a_class, policy.lost_share, policy.parity) == (40, 0.02, 1e-6)
    assert (policy.subgroup_auroc_drop, policy.subgroup_sensitivity_drop) == (0.10, 0.15)
    assert (policy.subgroup_alpha, policy.subgroup_power, policy.unjudged_share) == (0.05, 0.8, 0.1)
    assert policy.describe() == "the defaults"


def test_a_file_changes_some(tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text("auroc_margin: 0.03\nprevalence: 0.02\nsensitivity_margin: 0.02\n")
    policy = load_gate_policy(path)
    assert policy.changes() == {"auroc_margin": 0.03, "prevalence": 0.02}
    assert policy.describe() == "auroc_margin 0.03, prevalence 0.02; otherwise the defaults"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("auroc_margin: 0", "auroc_margin: 0 is not accepted: input should be greater than 0"),
        ("alpha: 1", "alpha: 1 is not accepted"),
        ("margin: 0.1", "margin: unknown key"),
        ("least_power: 1.0", "least_power: 1.0 is not accepted"),
        ("prevalence: 0", "prevalence: 0 is not accepted"),
        ("expected_correlation: 1.0", "expected_correlation: 1.0 is not accepted"),
        ("expected_auroc: 0.5", "expected_auroc: 0.5 is not accepted"),
        ("- 1", "holds list, expected sections"),
    ],
)
def test_faults_are_one_line_each(tmp_path, text, says):
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"gate\.yaml: ") as raised:
        load_gate_policy(path)
    assert says in str(raised.value)
