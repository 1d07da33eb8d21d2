"""A model beside readers: the published analysis of the Van Dyke study, and a slow jackknife."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from coded_models import save_coded, use_coded_networks, write_pictures
from scipy import stats
from sklearn.metrics import roc_auc_score
from studies import calibrator, frame

from pipeline.cli import run
from pipeline.errors import TableError, UndefinedMetricError
from pipeline.evaluation.intervals.paired_difference import paired_auroc
from pipeline.evaluation.predictions import Predictions, write_predictions
from pipeline.evaluation.readers.reader_study import auroc_covariance, compare_with_readers, panel_mean
from pipeline.jobs.evaluate_predictions import evaluate_predictions
from pipeline.workflow.judging.reader_table import read_reader_scores

# Ratings of 69 patients without and 45 with aortic dissection by five readers (Van Dyke et al., 1993), of spin-echo MRI
# and then of cine MRI; a public example of multi-reader analysis.
SPIN_ECHO = (
    "122151111111411111111131311214111113121211233131133111111221111332111555545554555434245555555154454553555115554451",
    "232222222322522232222222422223222222222222222222222222222432232222222535555542555442225555555243354552425225555352",
    "222235112242422232221232411322112224121412112222223211211221151421212545555555555542355555555252255552555225555552",
    "111111311111111111112111211112111111111111111111331111111111111311111555555555555555155555555554544553555125555555",
    "351211112221211122113221111211211231221113332111211111111341231212113525255551545452235555554144322151515115553552",
)
CINE = (
    "333222223213122222211111421312214323123122233111333113412421241442111535555554555544335555555355355554455535555551",
    "322222223222222122221222322222212212222231223222222222322322222222122535555552555344245455545252355532425525555552",
    "242222322211132222121121411512112122212221132111233113221232341242121525555555555354145555555253355543555534555551",
    "221111312111122111211111321212111122112111112121212211111212111323211545555554555455555555555455445555555535555555",
    "223122221222111222122212322321212222112121132122332122221222231233111525455555455343335555555251332532545533555553",
)
TRUTH = np.repeat([0, 1], [69, 45])


def ratings(texts):
    return [np.array([*map(float, text)]) for text in texts]


def jackknife(scores):
    """AUROC of each score, and the covariance that leaving each case out in turn gives."""
    kept = [np.arange(TRUTH.size) != case for case in range(TRUTH.size)]
    left = np.array([[roc_auc_score(TRUTH[keep], score[keep]) for score in scores] for keep in kept])
    count = TRUTH.size
    aurocs = np.array([roc_auc_score(TRUTH, score) for score in scores])
    return aurocs, (count - 1) ** 2 / count * np.cov(left.T)


@pytest.mark.parametrize(
    ("texts", "random", "freedom", "fixed"),
    [
        (SPIN_ECHO, (0.8252236, 0.9688505), 12.74465, (0.84943008, 0.94464399)),
        (CINE, (0.8941378, 0.9875369), 12.71019, (0.90795637, 0.97371835)),
    ],
)
def test_readers_means_are_those_of_the_published_analysis(texts, random, freedom, fixed):
    """OR-DBM MRMC 2.51 and MRMCaov, jackknife covariances, one modality at a time."""
    aurocs, covariance = jackknife(ratings(texts))
    found = panel_mean(aurocs, covariance)
    assert (found.random.lower, found.random.upper) == (pytest.approx(random[0]), pytest.approx(random[1]))
    assert found.degrees_of_freedom == pytest.approx(freedom)
    assert (found.fixed.lower, found.fixed.upper) == (pytest.approx(fixed[0]), pytest.approx(fixed[1]))
    assert found.random.estimate == pytest.approx(np.mean(aurocs))
    # On these cases alone it is the interval of Student's t of the readers' AUROCs.
    plain = stats.ttest_1samp(aurocs, 0.0).confidence_interval()
    assert (found.fixed_cases.lower, found.fixed_cases.upper) == (pytest.approx(plain.low), pytest.approx(plain.high))


def test_covariances_by_patient_are_near_those_of_the_jackknife():
    scores = ratings(SPIN_ECHO)
    aurocs, covariance = auroc_covariance(TRUTH, scores, np.arange(TRUTH.size).astype(str))
    expected_aurocs, expected = jackknife(scores)
    assert aurocs == pytest.approx(expected_aurocs)
    assert covariance == pytest.approx(expected, rel=0.03, abs=2e-5)


def test_covariances_leave_patients_out_whole():
    """Three cases a patient: the slow jackknife leaves out a patient at a time."""
    who, scores = np.arange(114) // 3, ratings(CINE)[:2]
    found = auroc_covariance(TRUTH, scores, who.astype(str))[1]
    left = [[roc_auc_score(TRUTH[who != one], score[who != one]) for score in scores] for one in range(38)]
    expected = 37**2 / 38 * np.cov(np.array(left).T)
    assert found == pytest.approx(expected, rel=0.1)
    assert auroc_covariance(TRUTH, scores, np.arange(114).astype(str))[1] != pytest.approx(expected, rel=0.1)


def test_readers_who_vary_together_against_the_average_are_not_taken_to_help():
    """A negative covariance between readers counts as none."""
    found = panel_mean([0.7, 0.8, 0.9], np.eye(3) * 0.02 - 0.005)
    assert found.random.upper - 0.8 == pytest.approx(stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3))
    assert found.degrees_of_freedom == pytest.approx(2.0)
    assert found.fixed.upper - 0.8 == pytest.approx(stats.norm.ppf(0.975) * np.sqrt(0.015 / 3))


def drawn_gain(seed, *, per_patient=1, readers=5):
    """A model that is as good as readers are on average, beside some of them."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [60, 60])
    who = np.arange(120) // per_patient
    seen = labels * 1.2 + rng.normal(size=120)[who]
    skills = rng.normal(1.0, 0.4, readers)
    columns = {str(at): labels * 0.6 * skill + 0.5 * seen + rng.normal(size=120) for at, skill in enumerate(skills)}
    table = pd.DataFrame({"case_id": [*map(str, range(120))], "split": "test", "label": labels})
    table["patient_id"] = [f"p{number}" for number in who]
    table["logit"] = labels * 0.6 + 0.5 * seen + rng.normal(size=120)
    made = Predictions.from_frame(table).with_probabilities(calibrator().apply)
    return compare_with_readers(made, pd.DataFrame(columns, index=table["case_id"]))


def shares_that_hold_0(studies, **settings):
    """Of both random, fixed readers and fixed cases."""
    found = [drawn_gain(seed, **settings) for seed in range(studies)]
    return [
        float(np.mean([interval(each).contains(0.0) for each in found]))
        for interval in (lambda one: one.gain, lambda one: one.gain_fixed, lambda one: one.gain_fixed_cases)
    ]


def test_a_model_that_is_as_readers_are_gains_nothing_in_most_studies():
    both, these_readers, these_cases = shares_that_hold_0(150, per_patient=3)
    assert 0.91 <= both <= 0.99
    # Neither knows how much others would have differed.
    assert these_readers < both
    assert these_cases < both


@pytest.mark.campaign
def test_intervals_of_readers_and_cases_hold_0_in_93_to_98_percent_of_studies():
    print("\n| readers | cases a patient | both random | these readers | these cases |\n|---|---|---|---|---|")
    for readers in (3, 5):
        for per_patient in (1, 3):
            both, *fixed = shares_that_hold_0(1000, per_patient=per_patient, readers=readers)
            print(f"| {readers} | {per_patient} | {both:.3f} | {fixed[0]:.3f} | {fixed[1]:.3f} |", flush=True)
            assert 0.93 <= both <= 0.98


def study(n=200, *, seed=0):
    made = Predictions.from_frame(frame(n, seed=seed)).with_probabilities(calibrator().apply)
    rng = np.random.default_rng(seed)
    values = {f"r{at}": np.round(made.logits + (1 + at) * rng.normal(size=n)) for at in range(3)}
    return made, pd.DataFrame(values, index=made.case_ids)


def test_differences_are_those_of_each_reader_on_the_cases_that_all_scored():
    made, scores = study()
    scores.iloc[:7, 1] = np.nan
    found = compare_with_readers(made, scores.sample(frac=1.0, random_state=0))
    part = Predictions(made.frame.iloc[7:].reset_index(drop=True))
    assert (found.n_cases, found.left_out) == (193, 7)
    assert found.model == pytest.approx(roc_auc_score(part.labels, part.probabilities))
    gains = [found.model - roc_auc_score(part.labels, scores[name].iloc[7:]) for name in scores]
    assert [each.gain for each in found.readers] == pytest.approx(gains)
    assert found.gain.estimate == found.gain_fixed.estimate == pytest.approx(np.mean(gains))
    assert found.average.estimate == pytest.approx(np.mean([each.auroc for each in found.readers]))
    assert found.gain.upper - found.gain.lower > found.gain_fixed.upper - found.gain_fixed.lower
    json.dumps(found.to_json(), allow_nan=False)


def test_readers_who_agree_wholly_are_one_reader():
    made, scores = study()
    same = pd.DataFrame({"a": scores["r0"], "b": scores["r0"], "c": scores["r0"]})
    found = compare_with_readers(made, same)
    pair = paired_auroc(made.labels, made.probabilities, scores["r0"], made.patients).interval()
    assert found.gain.estimate == pytest.approx(pair.estimate)
    assert found.gain_fixed.upper - found.gain_fixed.lower == pytest.approx(pair.upper - pair.lower, rel=0.03)
    assert found.gain.upper == pytest.approx(found.gain_fixed.upper)


def test_too_little_to_compare_is_said():
    made, scores = study()
    with pytest.raises(UndefinedMetricError, match="1 readers; expected at least 2"):
        compare_with_readers(made, scores[["r0"]])
    with pytest.raises(UndefinedMetricError, match="none of the 200 judged cases was scored by all 3 readers"):
        compare_with_readers(made, scores.set_axis([f"x{at}" for at in range(200)]))
    with pytest.raises(UndefinedMetricError, match="show no spread"):
        same = made.probabilities
        compare_with_readers(made, pd.DataFrame({"a": same, "b": same}, index=made.case_ids))


def write(path, rows):
    with open(path, "w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return path


def test_long_and_wide_tables_are_the_same(tmp_path):
    wide = write(tmp_path / "w.csv", [["case_id", "Ann", "Bob"], ["007", "1", "2.5"], ["b", "", "3"]])
    long = write(
        tmp_path / "l.csv",
        [["reader", "case_id", "score"], ["Ann", "007", "1"], ["Bob", "b", "3"], ["Bob", "007", "2.5"]],
    )
    one, other = read_reader_scores(wide), read_reader_scores(long)
    pd.testing.assert_frame_equal(one, other[["Ann", "Bob"]], check_names=False)
    assert one.loc["007", "Bob"] == 2.5
    assert np.isnan(one.loc["b", "Ann"])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([["case", "a", "b"], ["1", "1", "2"]], "needs 'case_id'"),
        ([["case_id", "a"], ["1", "1"]], "at least two readers"),
        ([["case_id", "reader", "score", "modality"], ["1", "a", "1", "x"]], "a table for each modality"),
        ([["case_id", "reader", "score", "name"], ["1", "a", "1", "x"]], "'case_id', 'reader' and 'score' alone"),
        ([["case_id", "reader", "score"]], "holds no scores"),
        (
            [["case_id", "reader", "score"], ["1", "a", "1"], ["Doe", "a", "1"], ["Doe", "a", "2"]],
            "row 4 scores a case",
        ),
        ([["case_id", "a", "b"], ["1", "1", "2"], ["Doe", "1", "2"], ["Doe", "1", "2"]], "row 4 scores a case"),
        ([["case_id", "a", "b"], ["1", "1", "2"], ["2", "1", "Doe"]], "row 3: 'b' is not a finite number"),
        (
            [["case_id", "reader", "score"], ["1", "a", "1"], ["1", "Doe", "inf"]],
            "row 3: 'score' is not a finite number",
        ),
        ([["case_id", "reader", "score"], ["Doe", "", "1"]], "row 2 has no reader"),
        ([["case_id", "a", "b"], ["", "1", "1"]], "row 2 has no case_id"),
        (
            [["case_id", "reader", "score"], ["1", "a", "1"], ["2", "a", "2"]],
            "one reader; an average takes at least two",
        ),
        ([["case_id", "a", "b", "c"], ["1", "1", "", "2"], ["2", "1", "", "2"]], "1 of 3 readers scored no case"),
    ],
)
def test_faults_of_the_table_are_one_line_without_what_its_cells_hold(tmp_path, rows, says):
    with pytest.raises(TableError, match=says) as raised:
        read_reader_scores(write(tmp_path / "t.csv", rows))
    assert "Doe" not in str(raised.value)
    assert "\n" not in str(raised.value)


def judged_file(folder):
    """300 cases to be judged and 300 of calibration."""
    parts = [frame(300, seed=1), frame(300, seed=2, split="calibration")]
    parts[1]["case_id"], parts[1]["patient_id"] = "c" + parts[1]["case_id"], "c" + parts[1]["patient_id"]
    made = Predictions.from_frame(pd.concat(parts, ignore_index=True)).with_probabilities(calibrator().apply)
    write_predictions(made, folder / "p.parquet")
    return made


def test_the_comparison_stands_in_the_report(tmp_path, capsys):
    made = judged_file(tmp_path)
    rng = np.random.default_rng(0)
    scores = np.round(made.logits[:, None] + 2 * rng.normal(size=(600, 2)))
    rows = [(case, *pair) for case, pair in zip(made.case_ids, scores.tolist(), strict=True)]
    table = write(tmp_path / "r.csv", [("case_id", "a", "b"), *rows])
    arguments = ["evaluate", "--predictions", str(tmp_path / "p.parquet"), "--readers", str(table)]
    assert run([*arguments, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["reader_study"]
    gain = found["gain"]["estimate"]
    assert found["not_judged"] == 300
    assert f"AUROC less that of 2 readers on average: {gain:.3f}" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Reader study</h2>" in page
    assert f"Model less readers' average: {gain:.3f}" in page
    evaluate_predictions(tmp_path / "p.parquet", tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "evaluation.json").read_text())["reader_study"] is None
    assert "Reader study" not in (tmp_path / "plain" / "report.html").read_text()


def test_case_ids_that_are_nowhere_are_counted_and_refused(tmp_path, capsys):
    made = judged_file(tmp_path)
    rows = [(case, 1, 2) for case in made.case_ids]
    table = write(tmp_path / "r.csv", [("case_id", "a", "b"), *rows, ("Doe, John", 1, 2)])
    arguments = ["evaluate", "--predictions", str(tmp_path / "p.parquet"), "--readers", str(table)]
    assert run([*arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "1 of 601 case ids are not in the predictions" in said
    assert "Doe" not in said
    assert not (tmp_path / "out").exists()


def test_an_undefined_comparison_is_a_reason_beside_all_that_is_defined(tmp_path, capsys):
    made = judged_file(tmp_path)
    rows = [(case, 1, 2) for case in made.where(split="calibration").case_ids]
    table = write(tmp_path / "r.csv", [("case_id", "a", "b"), *rows])
    arguments = ["evaluate", "--predictions", str(tmp_path / "p.parquet"), "--readers", str(table)]
    assert run([*arguments, "--out", str(tmp_path / "out")]) == 0
    reason = "reader study: none of the 300 judged cases was scored by all 2 readers"
    assert reason in capsys.readouterr().out
    assert reason in json.loads((tmp_path / "out" / "evaluation.json").read_text())["reader_study"]
    assert f"Undefined: {reason}" in (tmp_path / "out" / "report.html").read_text()


def test_a_model_is_compared_on_the_cases_that_it_is_judged_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=60)
    save_coded(tmp_path / "model", trained_on=["P5"])
    manifest = pd.read_csv("manifest.csv", dtype=str)
    rng = np.random.default_rng(0)
    truth = manifest["label"].astype(int)
    scores = [truth + np.round(rng.normal(size=60), 2) for _ in range(3)]
    pd.DataFrame({"case_id": manifest["case_id"], **dict(zip("abc", scores, strict=True))}).to_csv("r.csv", index=False)
    assert run(["evaluate", "model", "manifest.csv", "--out", "out", "--readers", "r.csv"]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["reader_study"]
    kept = manifest["patient_id"] != "P5"
    assert found["n_cases"] == int(kept.sum()) == 59
    assert found["not_judged"] == 1
    expected = [roc_auc_score(truth[kept], score[kept]) for score in scores]
    assert [each["auroc"] for each in found["readers"]] == pytest.approx(expected)
    pd.DataFrame({"case_id": ["nowhere"], "a": ["1"], "b": ["1"]}).to_csv("r.csv", index=False)
    assert run(["evaluate", "model", "manifest.csv", "--out", "out2", "--readers", "r.csv"]) == 2
    assert "1 of 1 case ids are not in the manifest" in capsys.readouterr().err
