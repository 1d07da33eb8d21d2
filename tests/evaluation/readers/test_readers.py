"""Agreement against published examples and other libraries; the ceiling against drawn readers whose truth is known."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from studies import calibrator, frame, point

from pipeline.errors import UndefinedMetricError, UsageError
from pipeline.evaluation.beside_headline import evaluate_details
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.readers.against_readers import evaluate_readers
from pipeline.evaluation.readers.agreement import (
    Ratings,
    ReaderColumns,
    agreement_intervals,
    krippendorff_alpha,
    read_ratings,
    single_rating_reliability,
    usual_reader_columns,
)
from pipeline.evaluation.readers.label_noise import (
    Panel,
    auroc_against_readers,
    ceiling,
    half_panels,
    means_of,
    readers_of,
    sides_of,
)

NAN = np.nan
# Four observers, twelve units (Krippendorff, 2011): nominal 0.743, ordinal 0.815, interval 0.849.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T
# Six targets, four judges (Shrout & Fleiss, 1979): ICC(1,1) is 0.17.
SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def drawn(n, *, reliability=0.5, most=4, seed=0, rounded=False, middle_at=0.2):
    """Ratings by 1 to ``most`` readers, and each case's own value; the scale's middle is 3."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=n) * np.sqrt(reliability)
    values = own[:, None] + rng.normal(size=(n, most)) * np.sqrt(1 - reliability) + 3 - middle_at
    if rounded:
        values = np.clip(np.round(values), 1, 5)
    count = rng.integers(1, most + 1, n)
    values[np.arange(most)[None, :] >= count[:, None]] = NAN
    return Ratings(values, (), 3.0), own


def test_alpha_is_that_of_krippendorffs_example():
    assert krippendorff_alpha(PUBLISHED) == pytest.approx(0.849, abs=0.0005)
    assert krippendorff_alpha(PUBLISHED + 1e6) == pytest.approx(0.849, abs=0.0005)  # no digits are lost


def test_alpha_of_yes_and_no_is_fleiss_kappa_with_its_small_sample_term():
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    rng = np.random.default_rng(0)
    own = rng.random((40, 1)) < 0.4
    ratings = np.where(rng.random((40, 3)) < 0.8, own, ~own).astype(float)
    table, _ = inter_rater.aggregate_raters(ratings)
    kappa = inter_rater.fleiss_kappa(table)
    assert krippendorff_alpha(ratings) == pytest.approx(kappa + (1 - kappa) / ratings.size)


def test_reliability_is_that_of_shrout_and_fleiss_and_of_variance_components_that_are_known():
    assert single_rating_reliability(SHROUT) == pytest.approx(0.166, abs=0.0005)
    for reliability in (0.3, 0.7):
        ratings, _ = drawn(30_000, reliability=reliability)
        assert single_rating_reliability(ratings.values) == pytest.approx(reliability, abs=0.015)


def test_ratings_that_cannot_agree_or_differ_are_undefined():
    for measure in (krippendorff_alpha, single_rating_reliability):
        with pytest.raises(UndefinedMetricError, match="needs cases that two readers rated"):
            measure(np.array([[1.0, NAN], [2.0, NAN]]))
        with pytest.raises(UndefinedMetricError, match="ratings that differ"):
            measure(np.ones((5, 3)))


def test_agreement_intervals_are_by_patient():
    ratings, _ = drawn(200, seed=2)
    alone = agreement_intervals(ratings.values, np.arange(200).astype(str), rng=np.random.default_rng(0))
    twice = np.vstack([ratings.values, ratings.values])
    patients = np.tile(np.arange(200), 2).astype(str)
    kept = agreement_intervals(twice, patients, rng=np.random.default_rng(0))
    for name in ("alpha", "reliability"):
        width = kept[name].upper - kept[name].lower
        assert width == pytest.approx(alone[name].upper - alone[name].lower, rel=0.05)


def agreement_coverage(studies, cases, *, reliability):
    rng, held = np.random.default_rng(5), {"alpha": [], "reliability": []}
    for seed in range(studies):
        ratings, _ = drawn(cases, reliability=reliability, seed=seed)
        found = agreement_intervals(ratings.values, np.arange(cases).astype(str), rng=rng, resamples=400)
        for name, interval in found.items():
            held[name].append(interval.contains(reliability))
    return {name: float(np.mean(values)) for name, values in held.items()}


def test_agreement_intervals_hold_the_truth():
    assert all(share >= 0.89 for share in agreement_coverage(150, 150, reliability=0.5).values())


@pytest.mark.parametrize("reliability", [0.3, 0.6])
def test_the_ceiling_is_the_auroc_of_each_cases_own_value(reliability):
    ratings, own = drawn(40_000, reliability=reliability)
    means = means_of(ratings.values)
    malignant, benign = sides_of(means, 3.0)
    known = malignant | benign
    truth = roc_auc_score(malignant[known], own[known])
    assert ceiling(ratings, reliability) == pytest.approx(truth, abs=0.006)


def test_the_ceiling_leaves_out_what_is_indeterminate():
    """Of normal ratings, those within 0.3 of the middle are called indeterminate: what is left is easier."""
    rng = np.random.default_rng(1)
    own = rng.normal(size=60_000) * np.sqrt(0.4)
    means = own + rng.normal(size=60_000) * np.sqrt(0.6 / 3)
    malignant, benign = means > 0.5, means < -0.1
    truth = roc_auc_score(malignant[malignant | benign], own[malignant | benign])
    panels = [Panel(3, None, 1.0)]
    found = auroc_against_readers(0.4, panels, malignant=malignant.mean(), benign=benign.mean())
    assert found == pytest.approx(truth, abs=0.006)
    assert found > auroc_against_readers(0.4, panels, malignant=0.3, benign=0.7)


def test_half_of_the_readers_against_the_others_is_what_the_model_of_readers_expects():
    ratings, _ = drawn(20_000, reliability=0.5)
    found = half_panels(ratings, 0.5, rng=np.random.default_rng(0))
    assert found.cases == int((ratings.counts >= 2).sum())
    assert found.observed == pytest.approx(found.expected, abs=0.006)
    # Readers who share what they get wrong agree with one another more than independent ones would.
    exact = auroc_against_readers(0.5, [Panel(1, 1, 1.0)], malignant=0.42, benign=0.58)
    assert found.expected > exact


def test_more_readers_and_more_agreement_raise_the_ceiling():
    def limit(reliability, readers):
        return auroc_against_readers(reliability, [Panel(readers, None, 1.0)], malignant=0.3, benign=0.7)

    assert limit(0.3, 1) < limit(0.3, 2) < limit(0.3, 4) < limit(0.6, 4) < limit(0.999, 4)
    assert limit(0.9999, 4) == pytest.approx(1.0, abs=0.001)
    assert limit(0.0001, 1) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(UndefinedMetricError, match=r"reliability 1\.000"):
        limit(1.0, 2)
    with pytest.raises(UndefinedMetricError, match="both classes"):
        auroc_against_readers(0.5, [Panel(2, None, 1.0)], malignant=1.0, benign=0.0)


def test_shares_of_readers_add_up():
    ratings = Ratings(np.array([[1, 2, NAN], [3, NAN, NAN], [NAN, NAN, NAN], [1, 1, 1.0]]), (), 3.0)
    assert readers_of(ratings) == [(1, pytest.approx(1 / 3)), (2, pytest.approx(1 / 3)), (3, pytest.approx(1 / 3))]
    assert readers_of(ratings, least=2) == [(2, 0.5), (3, 0.5)]


def test_joined_and_separate_columns_say_the_same():
    joined = pd.DataFrame({"ratings": ["5|4|3", "2", None, "1; 2"]})
    apart = pd.DataFrame({"a": [5, 2, NAN, 1], "b": [4, NAN, NAN, 2], "c": [3, NAN, NAN, NAN]})
    one = read_ratings(joined, ReaderColumns(("ratings",)))
    other = read_ratings(apart, ReaderColumns(("a", "b", "c")))
    np.testing.assert_array_equal(one.values, other.values)
    assert (one.readers, other.readers) == ((), ("a", "b", "c"))
    assert one.counts.tolist() == [3, 1, 0, 2]
    with pytest.raises(UsageError, match="a cell holds 'high'"):
        read_ratings(pd.DataFrame({"ratings": ["5|high"]}), ReaderColumns(("ratings",)))
    with pytest.raises(UsageError, match="no column 'd'"):
        read_ratings(apart, ReaderColumns(("a", "d")))


def test_usual_columns_are_found():
    assert usual_reader_columns(["site", "rating_1", "rating_2", "ratings"]) == ("rating_1", "rating_2")
    assert usual_reader_columns(["rating_1", "ratings"]) == ("ratings",)
    assert usual_reader_columns(["reader_1", "reader_2"]) == ("reader_1", "reader_2")
    assert usual_reader_columns(["mean_rating_1", "site"]) == ()


def rated_study(n=400, *, seed=0, own_labels=True):
    """Cases that three readers rated; labels are on the side of their mean, and the middle has none."""
    table, rng = frame(n, seed=seed), np.random.default_rng(seed)
    for reader in (1, 2, 3):
        noisy = 3 + 0.8 * table["logit"] / table["logit"].std() + rng.normal(size=n)
        table[f"rating_{reader}"] = np.clip(np.round(noisy), 1, 5)
    table.loc[::7, "rating_3"] = NAN
    mean = table[["rating_1", "rating_2", "rating_3"]].mean(axis=1)
    if own_labels:
        table["label"] = (mean > 3).astype("Int8").mask(mean == 3)
    return Predictions.from_frame(table).with_probabilities(calibrator().apply)


NAMES = ReaderColumns(("rating_1", "rating_2", "rating_3"))


def test_each_reader_and_the_model_are_judged_by_the_others():
    study = rated_study()
    found = evaluate_readers(study, NAMES, resamples=200)
    table = study.frame
    others = table[["rating_2", "rating_3"]].mean(axis=1)
    kept = (others != 3) & others.notna()
    first = found.readers[0]
    assert first.n_cases == int(kept.sum())
    assert first.reader.estimate == pytest.approx(roc_auc_score(others[kept] > 3, table["rating_1"][kept]))
    assert first.model.estimate == pytest.approx(roc_auc_score(others[kept] > 3, table["probability"][kept]))
    assert first.gain.estimate == pytest.approx(first.model.estimate - first.reader.estimate)
    assert found.mean_reader.estimate == pytest.approx(np.mean([each.reader.estimate for each in found.readers]))
    assert found.mean_model.estimate == pytest.approx(np.mean([each.model.estimate for each in found.readers]))
    assert found.mean_gain.estimate == pytest.approx(found.mean_model.estimate - found.mean_reader.estimate)
    assert found.n_ratings == int(table[list(NAMES.names)].notna().sum().sum())
    assert found.ceiling.lower < found.ceiling.estimate < found.ceiling.upper < 1
    assert found.missing == {}
    json.dumps(found.to_json(), allow_nan=False)


def test_readers_without_names_are_judged_on_average_alone():
    study = rated_study()
    joined = study.frame[list(NAMES.names)].apply(lambda row: "|".join(f"{v:g}" for v in row.dropna()), axis=1)
    plain = Predictions(study.frame.drop(columns=list(NAMES.names)).assign(ratings=joined))
    found = evaluate_readers(plain, ReaderColumns(("ratings",)), resamples=200)
    named = evaluate_readers(study, NAMES, resamples=200)
    assert found.readers == ()
    assert (found.alpha, found.reliability) == (named.alpha, named.reliability)
    assert found.ceiling == named.ceiling
    assert found.mean_reader.estimate == pytest.approx(named.mean_reader.estimate)


def test_labels_of_another_source_have_no_ceiling_of_these_readers():
    found = evaluate_readers(rated_study(own_labels=False), NAMES, resamples=100)
    assert found.ceiling is None
    assert found.halves is None
    assert "a ceiling is for labels that are these readers' own" in found.missing["ceiling"]
    assert found.mean_reader is not None


def test_details_have_readers_where_there_are_any_and_a_reason_where_they_say_nothing():
    found = evaluate_details(rated_study(), operating_point=point(), resamples=100)
    assert found.to_json()["readers"]["alpha"]["estimate"] > 0.2
    bad = Predictions(rated_study().frame.assign(rating_2="many"))
    assert "a cell holds 'many'" in evaluate_details(bad, operating_point=point(), resamples=100).missing["readers"]
    none = Predictions(rated_study().frame.drop(columns=list(NAMES.names)))
    assert evaluate_details(none, operating_point=point(), resamples=100).readers is None


@pytest.mark.campaign
def test_the_ceiling_of_whole_ratings():
    """Ratings are whole numbers from 1 to 5 where the model takes normal ones: how far the ceiling is off."""
    print("\n| reliability | readers | ratings | ceiling | own value | half panels: observed | expected |")
    print("|---|---|---|---|---|---|---|")
    for reliability in (0.3, 0.5, 0.7):
        for most in (2, 4):
            for rounded in (False, True):
                ratings, own = drawn(40_000, reliability=reliability, most=most, rounded=rounded)
                malignant, benign = sides_of(means_of(ratings.values), 3.0)
                known = malignant | benign
                truth = roc_auc_score(malignant[known], own[known])
                single = single_rating_reliability(ratings.values)
                limit, halves = ceiling(ratings, single), half_panels(ratings, single, rng=np.random.default_rng(0))
                kind = "whole" if rounded else "normal"
                print(
                    f"| {reliability} | 1 to {most} | {kind} | {limit:.3f} | {truth:.3f} | {halves.observed:.3f} | "
                    f"{halves.expected:.3f} |",
                    flush=True,
                )
                assert limit == pytest.approx(truth, abs=0.03 if rounded else 0.012)  # 40,000 cases


@pytest.mark.campaign
def test_agreement_intervals_hold_the_truth_in_most_studies():
    print("\n| cases | reliability | alpha | reliability of a rating |\n|---|---|---|---|")
    for cases in (100, 300):
        for reliability in (0.3, 0.6):
            found = agreement_coverage(1000, cases, reliability=reliability)
            print(f"| {cases} | {reliability} | {found['alpha']:.3f} | {found['reliability']:.3f} |", flush=True)
            assert all(share >= 0.91 for share in found.values())
