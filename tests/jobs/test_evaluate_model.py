"""`malignancy evaluate MODEL MANIFEST`: what stands in the evaluation beside the headline."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from coded_models import register_coded, save_coded, use_coded_networks, write_pictures
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny_models import write_model, write_scans

from pipeline.cases.manifest import read_manifest
from pipeline.cli import run
from pipeline.config.experiment import Tracking
from pipeline.evaluation.decisions.decision_curve import decision_curve
from pipeline.evaluation.decisions.refer_zone import ReferZone
from pipeline.evaluation.intervals.bootstrap import OUT_OF_FOLD
from pipeline.evaluation.predictions import Predictions
from pipeline.files import sha256_file
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer
from pipeline.workflow.reporting.mistakes import Mistake, confident_mistakes, planes_png


def test_doubtful_cases_and_subgroups_of_the_manifest_are_judged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=120)
    table = pd.read_csv("manifest.csv", dtype=str)
    doubtful = table.index % 6 == 5
    table["mean_malignancy"] = table["label"].map({"0": "1.5", "1": "4.5"})
    table.loc[doubtful, ["label", "mean_malignancy"]] = ["", "3"]
    table.loc[table.index % 6 == 4, "label"] = ""  # unlabelled for another reason: counts nowhere
    table.to_csv("manifest.csv", index=False)
    save_coded(tmp_path / "model", trained_on=["P5"])  # the patient of a doubtful case
    assert run(["evaluate", "model", "manifest.csv", "--out", "out"]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    counts = {each["value"]: each["n_cases"] for each in found["label_certainty"]}
    assert counts["indeterminate excluded"] == found["n_cases"] == 80
    assert counts["indeterminate counted benign"] == counts["indeterminate counted malignant"] == 80 + 19
    assert {(each["column"], each["value"]) for each in found["subgroups"]} == {("site", "north"), ("site", "south")}
    assert "refer zone" in found["missing"]  # a model directory keeps no calibration predictions
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Label certainty" in page
    assert "to be filled in by a person" in page


def test_the_report_refers_the_cases_that_the_rows_refer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=120)
    save_coded(tmp_path / "model", refer_zone=ReferZone(0.9, 0.5, 0.4, 100, 100, (0.8, 0.9), (0.8, 0.9)))
    assert run(["evaluate", "model", "manifest.csv", "--out", "out"]) == 0
    manifest = read_manifest(tmp_path / "manifest.csv")
    rows = list(score_cases(Scorer(load_model(tmp_path / "model"), root=tmp_path), manifest.cases))
    referred, values = [row.decision == "refer" for row in rows], np.array([row.probability for row in rows])
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["refer_zone"]
    assert found["n_cases"] == len(rows) == 120
    assert found["referred"]["estimate"] == pytest.approx(np.mean(referred))
    assert found["referred"]["estimate"] > np.mean((values > 0.4) & (values < 0.5))  # the zone alone


def test_refused_cases_are_counted_beside_the_headline(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=60)
    table = pd.read_csv("manifest.csv", dtype=str).set_index("case_id")
    broken = [*table.index[table["label"] == "1"][:3], *table.index[table["label"] == "0"][:2]]
    for image in table.loc[broken, "image"]:
        (tmp_path / image).write_bytes(b"no picture")
    save_coded(tmp_path / "model")
    assert run(["evaluate", "model", "manifest.csv", "--out", "out"]) == 1
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    refused, counts = found["refused"], found["confusion"]
    assert (refused["cases"], refused["malignant"], refused["patients"]) == (5, 3, 5)
    malignant = counts["true_positive"] + counts["false_negative"] + 3
    assert refused["as_mistakes"]["sensitivity"]["estimate"] == pytest.approx(counts["true_positive"] / malignant)
    assert refused["as_positive"]["sensitivity"]["estimate"] == pytest.approx((counts["true_positive"] + 3) / malignant)
    assert "refused cases: 5 labelled cases refused, 3 malignant: as mistakes" in capsys.readouterr().out
    assert run(["evaluate", "--predictions", "out/predictions.parquet", "--out", "again"]) == 2  # no calibration split
    frame = pd.read_parquet("out/predictions.parquet")
    others = frame.assign(split="calibration", patient_id="other " + frame["patient_id"])
    pd.concat([frame, others]).to_parquet("both.parquet")
    assert run(["evaluate", "--predictions", "both.parquet", "--out", "again"]) == 0
    found = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert "is not known" in found["refused"]
    assert found["intervals_are"] is None
    printed = capsys.readouterr().out
    assert "refused cases: predictions hold the cases that were scored" in printed
    assert OUT_OF_FOLD not in printed


def test_stated_prevalence_restates_the_decision_curve(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=60)
    save_coded(tmp_path / "model")
    assert run(["evaluate", "model", "manifest.csv", "--out", "out", "--prevalence", "0.07"]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["decision_curve"]
    frame = pd.read_parquet("out/predictions.parquet")
    for name, prevalence in (("here", None), ("restated", 0.07)):
        curve = decision_curve(
            frame["label"], frame["probability"], patients=frame["patient_id"], prevalence=prevalence
        )
        assert found[name] == curve.to_json()
    assert (tmp_path / "out" / "figures" / "decision_curve_restated.png").stat().st_size > 10_000
    assert '<th scope="row">7.0 %</th>' in (tmp_path / "out" / "report.html").read_text()
    assert run(["evaluate", "model", "manifest.csv", "--out", "two", "--prevalence", "7"]) == 2
    assert "--prevalence 7 is not in (0, 1); give a share, as 0.05" in capsys.readouterr().err


def test_out_of_fold_intervals_say_what_they_leave_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng, labels = np.random.default_rng(0), np.arange(240) % 2
    frame = pd.DataFrame({"case_id": [f"c{number}" for number in range(240)], "label": labels})
    frame["logit"] = rng.normal(labels * 2 - 1, 1)
    frame["probability"] = 1 / (1 + np.exp(-frame["logit"]))
    frame["patient_id"], frame["split"] = "of " + frame["case_id"], ["test"] * 120 + ["calibration"] * 120
    frame["fold"] = [number // 2 % 2 if number < 120 else None for number in range(240)]
    frame.to_parquet("folds.parquet")
    assert run(["evaluate", "--predictions", "folds.parquet", "--out", "out", "--prevalence", "0.3"]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["intervals_are"] == OUT_OF_FOLD
    assert found["decision_curve"]["restated"]["prevalence"] == 0.3
    assert OUT_OF_FOLD in capsys.readouterr().out
    assert f"I{OUT_OF_FOLD[1:]}." in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("spelling", ["{}.0", "0{}", "{}.00"])
def test_patients_are_recognised_in_the_spellings_of_spreadsheets(tmp_path, monkeypatch, capsys, spelling):
    monkeypatch.chdir(tmp_path)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=60)
    table = pd.read_csv("manifest.csv", dtype=str)
    table["patient_id"] = [spelling.format(1000 + number) for number in range(60)]
    table.to_csv("manifest.csv", index=False)
    save_coded(tmp_path / "model", trained_on=[str(1000 + number) for number in range(20)])
    assert run(["evaluate", "model", "manifest.csv", "--out", "out"]) == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["n_cases"] == 40
    assert "20 cases of patients that the model has seen were left out" in capsys.readouterr().out


def test_images_that_the_model_was_fitted_on_are_left_out_under_new_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=60)
    digests = [sha256_file(tmp_path / "images" / f"{number}.png") for number in range(15)]
    save_coded(tmp_path / "model", images=digests)
    assert run(["evaluate", "model", "manifest.csv", "--out", "out"]) == 0
    printed = capsys.readouterr().out
    left_out = 60 - json.loads((tmp_path / "out" / "evaluation.json").read_text())["n_cases"]
    assert left_out >= 15
    assert f"warning: {left_out} cases of patients that seem new have images that the model was fitted on" in printed


@pytest.mark.parametrize(("known", "said"), [(60, True), (30, True), (29, False), (0, False)])
def test_new_patients_with_known_case_ids_are_doubted(tmp_path, monkeypatch, capsys, known, said):
    monkeypatch.chdir(tmp_path)
    use_coded_networks(monkeypatch)
    write_pictures(tmp_path, patients=60)
    save_coded(tmp_path / "model", case_ids=[f"c{number}" for number in range(known)])
    assert run(["evaluate", "model", "manifest.csv", "--out", "out"]) == 0
    text = f"warning: none of the patients is known to the model, but {known} of 60 case ids are"
    assert (text in capsys.readouterr().out) == said


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A folder with cases and a registry: a weaker champion that has seen 40 patients, and others."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_pictures(folder, patients=200)
        settings = {
            "champion": {"south": 0.2, "trained_on": [f"P{number}" for number in range(40)]},
            "better": {},
            "foreign": {"source": "pathology"},
        }
        uris = {what: register_coded(folder, Tracking(), **each) for what, each in settings.items()}
        uris["alone"] = register_coded(folder, Tracking(), name="alone")
        yield folder, uris


def evaluated(registry, monkeypatch, what, out, *options):
    folder, uris = registry
    monkeypatch.chdir(folder)
    use_coded_networks(monkeypatch)
    assert run(["evaluate", uris.get(what, what), "manifest.csv", "--out", out, *options]) == 0
    return json.loads((folder / out / "evaluation.json").read_text()), (folder / out / "report.html").read_text()


def test_champion_is_judged_on_the_cases_that_it_has_not_seen(registry, monkeypatch, capsys):
    found, page = evaluated(registry, monkeypatch, "better", "better")
    beside = found["champion"]
    assert found["n_cases"] == 200
    assert beside["evaluation"]["n_cases"] == beside["model"]["n_cases"] == 160
    assert "on 160 of these 200 cases: 40 are of patients in its training" in beside["note"]
    table = pd.read_parquet(registry[0] / "better" / "predictions.parquet")
    shared = table[~table["patient_id"].isin([f"P{number}" for number in range(40)])]
    mine = roc_auc_score(shared["label"], shared["logit"])
    z = np.where(shared["site"] == "south", 0.2 / 1.8, 1.0) * shared["logit"]  # what the champion's slopes make of it
    assert beside["gain"]["estimate"] == pytest.approx(mine - roc_auc_score(shared["label"], z), abs=1e-6)
    assert beside["gain"]["lower"] > 0
    assert "<th>Model, champion's cases</th><th>Champion</th>" in page
    assert "Champion: coded version 1, on 160 of these 200 cases" in page
    assert "AUROC gain over the champion: 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("champion", "this is the champion, coded version 1"),
        ("foreign", "coded version 1 answers another question: same label source does not hold"),
        ("alone", "this is the champion, alone version 1"),
        ("folder", "no registered model is named"),
    ],
)
def test_report_says_why_there_is_no_champion_beside_the_model(registry, monkeypatch, what, why):
    if what == "folder":
        save_coded(registry[0] / "folder")
    found, page = evaluated(registry, monkeypatch, what, f"no-{what}")
    assert found["champion"] == why
    assert f"Not beside the champion: {why}." in page


def test_champion_can_be_left_out(registry, monkeypatch):
    found, page = evaluated(registry, monkeypatch, "better", "without", "--no-champion")
    assert found["champion"] == "not asked for"
    assert "Not beside the champion: not asked for." in page


def test_most_confident_mistakes_are_the_farthest_on_the_wrong_side():
    frame = pd.DataFrame(
        {"label": [0, 0, 0, 1, 1, 1, 0, None], "probability": [0.9, 0.6, 0.4, 0.1, 0.45, 0.6, 0.95, 1.0]}
    )
    frame = frame.assign(case_id=list("abcdefgh"), patient_id="p", split="test", logit=0.0)
    assert confident_mistakes(Predictions.from_frame(frame), each_way=2) == (
        Mistake("g", 0, 0.95),
        Mistake("a", 0, 0.9),
        Mistake("d", 1, 0.1),
        Mistake("e", 1, 0.45),
    )


def test_pictures_are_shown_only_when_asked_for_and_show_the_case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model")
    cases = write_scans(tmp_path / "scans", 24)
    rows = [f"{each.case_id},P{number},scans/{each.image},{number % 2},0,0,0,RAS" for number, each in enumerate(cases)]
    header = "case_id,patient_id,image,label,center_x_mm,center_y_mm,center_z_mm,coordinate_system"
    (tmp_path / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    command = ["evaluate", "model", "manifest.csv", "--out"]
    assert run([*command, "plain"]) == 0
    assert run([*command, "shown", "--pictures"]) == 0
    plain, shown = ((tmp_path / name / "report.html").read_text() for name in ("plain", "shown"))
    assert "The most confident mistakes" not in plain
    table = pd.read_parquet(tmp_path / "shown" / "predictions.parquet")
    wrong = confident_mistakes(Predictions.from_frame(table))
    assert wrong
    section = shown.split(">The most confident mistakes</h2>")[1].split("<section>")[0]
    assert "It proves nothing" in section
    pictures = [Image.open(io.BytesIO(base64.b64decode(each))) for each in re.findall(r"base64,([^\"]+)", section)]
    assert len(pictures) == len(wrong)
    for mistake in wrong:
        assert f"{mistake.case_id}: labelled {'malignant' if mistake.label else 'benign'}" in section
    above = np.asarray(pictures[0].convert("RGB"), dtype=int)[:132]
    # The lesion, four voxels of 2 mm in the middle of dark lung, is the bright square in the middle of each plane.
    for left in (0, 136, 272):
        plane = above[:, left : left + 132, 0]
        assert plane[56:76, 56:76].mean() > plane[:20].mean() + 60
    assert run(["evaluate", "--predictions", "shown/predictions.parquet", "--out", "again", "--pictures"]) == 2


@pytest.mark.parametrize(("spacing", "bar"), [((1.25, 1.25, 1.25), 38), ((5.0, 5.0, 5.0), 9), (None, 0)])
def test_planes_have_letters_and_a_bar_of_10_mm(spacing, bar):
    planes = [np.zeros((28, 28), np.float32)] * 3
    sheet = np.asarray(Image.open(io.BytesIO(planes_png(planes, planes, spacing))).convert("RGB")).astype(int)
    marked = np.abs(sheet - (120, 220, 255)).sum(axis=2) < 30
    assert marked[:20].any()  # letters at the top
    assert marked[50:80].any()  # and at the left
    assert not marked[136:].any()  # none over the heat
    widths = marked[126:129].any(axis=0).sum() / 3
    assert widths == pytest.approx(bar, abs=2)
