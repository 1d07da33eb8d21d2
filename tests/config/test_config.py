"""Configuration: every mistake is one line that names file, key, value, limit and remedy."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline.config.file import load_config, load_training_config
from pipeline.config.plain_yaml import parse_yaml
from pipeline.errors import ConfigError

MINIMAL = """
name: mine
data: {manifest: scans/manifest.csv, modality: CT, label_source: biopsy}
preprocessing: {region: lesion, size: [32, 32, 32], spacing_mm: [1, 1, 1]}
"""
SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    return path


def test_each_registered_model_name_is_used_by_one_shipped_configuration():
    names = [load_training_config(path).tracking.registered_model for path in SHIPPED]
    registered = [name for name in names if name]
    assert len(registered) == len(set(registered))
    assert load_config(SHIPPED[0].with_name("smoke.yaml")).tracking.registered_model is None


@pytest.mark.parametrize(
    ("findings", "more", "says"),
    [
        ("[calcified, malignant]", [], r"is no list for task multilabel, which starts with 'malignant'"),
        ("[malignant, calcified, calcified]", [], r"data\.findings: 'calcified' stands twice"),
        ("[malignant, macro]", [], r"'macro' stands twice or is a name that score rows and summaries use"),
        ("[malignant, member_1]", [], r"'member_1' stands twice or is a name"),
        (
            "[malignant, calcified]",
            ["training.class_balance=weighted_loss", "calibration.method=platt"],
            r"training\.class_balance: 'weighted_loss' balances one label",
        ),
    ],
)
def test_findings_that_cannot_be_meant(config_file, findings, more, says):
    with pytest.raises(ConfigError, match=says):
        load_config(config_file, ["task=multilabel", f"data.findings={findings}", *more])


@pytest.mark.parametrize("overridden", [False, True])
def test_a_table_is_looked_for_beside_the_file_first_and_that_of_an_override_here(tmp_path, monkeypatch, overridden):
    for folder in ("beside", "here"):
        (tmp_path / folder).mkdir()
        for name in ("table.csv", "marks.csv"):
            (tmp_path / folder / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "beside" / "mine.yaml"
    path.write_text(MINIMAL.replace("scans/manifest.csv", "table.csv, lesions: [marks.csv]"))
    data = load_config(path, ["data.manifest=table.csv", "data.lesions=[marks.csv]"] if overridden else []).data
    place = tmp_path / ("here" if overridden else "beside")
    assert data.manifest.resolve() == place / "table.csv"
    assert [source.resolve() for source in data.lesions] == [place / "marks.csv"]


def test_overrides_are_read_as_yaml_and_win(config_file):
    config = load_config(
        config_file, ["training.learning_rate=1e-4", "preprocessing.size=[40,40,40]", "network.name=resnet18"]
    )
    assert config.training.learning_rate == 1e-4
    assert config.preprocessing.size == (40, 40, 40)
    assert config.network.name == "resnet18"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.max_epohcs=3", r"training\.max_epohcs: unknown key; check its spelling"),
        ("training.max_epochs=abc", r"training\.max_epochs: 'abc' is not accepted: input should be a valid integer"),
        ("training.max_epochs=2.5", r"training\.max_epochs: 2\.5 is not accepted"),
        ("training.max_epochs=-1", r"training\.max_epochs: -1 is not accepted: input should be greater than 0"),
        ("training.early_stopping.patience=40", r"patience: 40 is not below training\.max_epochs \(30\).*lower it"),
        ("training.class_balance=weighted_loss", r"calibration\.method: 'temperature' cannot correct.*use 'platt'"),
        ("training.class_balance=balanced_sampler", r"calibration\.method: 'temperature' cannot correct.*use 'platt'"),
        ("calibration.prior_correction=true", r"has nothing to correct"),
        ("training.precise_batch_norm=true", r"for averaged weights, and training\.ema_decay is 0; set that"),
        (
            "training={precise_batch_norm: true, ema_decay: 0.9}",
            r"the epoch that training\.early_stopping picked.*null",
        ),
        ("preprocessing.size=[32,32]", r"size has 2 values for dimensions=3; give 3"),
        ("preprocessing.size=[4,4,4]", r"below 8 voxels"),
        ("preprocessing.spacing_mm=null", r"region 'lesion' needs spacing_mm"),
        ("preprocessing.dimensions=2", r"give 2"),
        ("preprocessing.intensity.lower=500", r"lower \(500\.0\) is not below upper \(400\.0\)"),
        ("preprocessing.intensity.scaling=zscore", r"lower and upper have no meaning for scaling 'zscore'"),
        ("network.name=vit", r"network\.name: 'vit' is not accepted: input should be 'compact', 'planes', 'cnn_lstm'"),
        ("network={name: resnet18, width: 8}", r"width 8 has no meaning for 'resnet18'"),
        ("network={name: densenet121, pooling: center}", r"pooling 'center' has no meaning for 'densenet121'"),
        ("network={stages: 2}", r"stages 2 has no meaning for 'compact'; remove it or choose a residual network"),
        ("network={name: resnet18, stages: 5}", r"network\.stages: 5 is not accepted: input should be less than or"),
        ("network={name: compact, average_turns: true}", r"average_turns: true without average_flips"),
        ("network={name: resnet18, activation: tanh}", r"activation 'tanh' cannot be given to 'resnet18'"),
        ("network.head=hinge", r"network\.head: 'hinge' is not accepted: input should be 'sigmoid' or 'softmax'"),
        ("data.splits.train=0.9", r"data\.splits: the four fractions add up to 1\.35, not 1"),
        ("operating_point.target=null", r"target is None for rule 'sensitivity'"),
        ("operating_point.rule=youden", r"target is 0\.95 for rule 'youden'"),
        ("operating_point.target=95", r"operating_point\.target: 95 is not accepted: input should be less than 1"),
        ("tracking.registered_model=a/b", r"tracking\.registered_model: 'a/b' is not accepted"),
        ("name=../x", r"name: '\.\./x' is not accepted"),
        (
            "data.findings=[malignant, calcified]",
            r"data\.findings: \['malignant', 'calcified'\] needs task: multilabel",
        ),
        ("task=multilabel", r"data\.findings: \['malignant'\] is no list for task multilabel, which starts with"),
        ("data.findings=[a/b]", r"data\.findings\.0: 'a/b' is not accepted"),
        ("training", r"override 'training': expected section\.key=value"),
        ("training.max_epochs.deep=3", r"training\.max_epochs: \{'deep': 3\} is not accepted"),
        ("name.deep=3", r"override 'name\.deep=3': 'name' is a value, not a section"),
        ("training.max_epochs=[", r"not a YAML value \(.*\); quote it"),
        (
            "training.learning_rate=.inf",
            r"training\.learning_rate: inf is not accepted: input should be a finite number",
        ),
        ("training.learning_rate=.nan", r"training\.learning_rate: nan is not accepted"),
        ("training.batch_size=18446744073709551616", r"a number of more than 9,007,199,254,740,992"),
        ("seed=" + "9" * 5000, r"a number of more than 9,007,199,254,740,992"),
        ("seed=4294967296", r"seed: 4294967296 is not accepted"),
        ("training.max_epochs=2000000", r"training\.max_epochs: 2000000 is not accepted"),
        ("network.width=1000000000", r"network\.width: 1000000000 is not accepted"),
        ("preprocessing.size=[100000, 32, 32]", r"preprocessing\.size\.0: 100000 is not accepted"),
        ("preprocessing.size=[4096, 4096, 4096]", r"68,719,476,736 voxels, expected at most 134,217,728; give fewer"),
        ("name=" + "x" * 1_000_000, r"name: 'x{20,60}\.\.\.x+' is not accepted"),
        ("x" * 900_000 + "=1", r": x{100}\.\.\.: unknown key"),
        ("a=" + "[" * 1000 + "]" * 1000, r"sections lie more than 20 deep"),
    ],
)
def test_mistake_is_one_line_with_its_remedy(config_file, override, says):
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(config_file, [override])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "override" in str(caught.value) or str(config_file) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", r"mine\.yaml:1:\d+: not valid YAML"),
        ("- a\n- b\n", r"holds list, expected sections"),
        ("", r"holds NoneType, expected sections"),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
            r"mine\.yaml:2:\d+: not valid YAML: an alias \(\*\) stands for",
        ),
        ("a: " * 1000 + "1", r"not valid YAML"),
        ("a: " + "{a: " * 30 + "1" + "}" * 30, r"sections lie more than 20 deep"),
        ("a: 2026-13-45", r"not valid YAML: month must be in 1\.\.12"),
        ("# " + "x" * 1_000_000, r"1,000,002 characters, expected at most 1,000,000"),
        (MINIMAL + "seed: 1\nseed: 2\n", r"key 'seed' stands twice; keep one"),
        (MINIMAL.replace("name: mine", "name: !!python/object/apply:os.system [ls]"), r"not valid YAML"),
        (MINIMAL.replace("manifest: scans/manifest.csv, ", ""), r"data\.manifest: required and absent; add it"),
    ],
)
def test_file_that_is_not_a_configuration(config_file, text, says):
    config_file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_config(config_file)


@pytest.mark.parametrize("name", [".", "manifest.csv"])
def test_a_folder_or_table_is_led_to_the_configuration(config_file, name):
    with pytest.raises(ConfigError, match=r"expected a configuration; give a YAML file"):
        load_config(config_file.parent / name)
    (config_file.parent / "config.yaml").write_text(MINIMAL)
    with pytest.raises(ConfigError, match=r"expected a configuration; did you mean .*config\.yaml\?"):
        load_config(config_file.parent / name)


def test_missing_file_and_wrong_encoding(config_file):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(config_file.with_name("other.yaml"))
    config_file.write_bytes(MINIMAL.replace("biopsy", "é").encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read as UTF-8"):
        load_config(config_file)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("augmentation.noise_std=0.01", r"augmentation\.noise_std: 0\.01 would make padding look like slices"),
        (
            "preprocessing={dimensions: 2, region: image, size: [32, 32], spacing_mm: null}",
            r"network\.name: 'cnn_lstm' reads slices along the third axis, and preprocessing\.dimensions is 2",
        ),
    ],
)
def test_cnn_lstm_refuses_what_would_hide_the_slices(config_file, override, says):
    load_config(config_file, ["network.name=cnn_lstm"])
    with pytest.raises(ConfigError, match=says):
        load_config(config_file, ["network.name=cnn_lstm", override])


def test_two_mistakes_are_two_lines(config_file):
    with pytest.raises(ConfigError, match="unknown key") as caught:
        load_config(config_file, ["colour=red", "seed=x"])
    assert len(str(caught.value).splitlines()) == 2


def test_configuration_cannot_be_changed_after_loading(config_file):
    with pytest.raises(ValueError, match="frozen"):
        load_config(config_file).seed = 3


LIMITS = [  # what is still accepted, and the next value that is not
    ("preprocessing.size=[8,8,8]", "preprocessing.size=[8,8,7]"),
    ("preprocessing.intensity={lower: 399, upper: 400}", "preprocessing.intensity={lower: 400, upper: 400}"),
    ("preprocessing.size=[512,512,512]", "preprocessing.size=[512,512,513]"),
    ("training.early_stopping.patience=29", "training.early_stopping.patience=30"),
    ("training.folds=2", "training.folds=1"),
    ("training.max_epochs=1000000", "training.max_epochs=1000001"),
    ("training={min_steps: 1000000}", "training={min_steps: 1000001}"),
    ("training.loader_workers=1024", "training.loader_workers=1025"),
    ("training.ema_decay=0", "training.ema_decay=1"),
    ("training.weight_decay=0", "training.weight_decay=-0.001"),
    ("training={members: 2, early_stopping: null}", "training={members: 2}"),
    (
        "training={precise_batch_norm: true, ema_decay: 0.9, early_stopping: null}",
        "training={precise_batch_norm: true, ema_decay: 0.9}",
    ),
    (
        "training.soft_labels={column: rating, lowest: 1, highest: 1.001}",
        "training.soft_labels={column: rating, lowest: 1, highest: 1}",
    ),
    ("network.dropout=0", "network.dropout=1"),
    ("network.width=4096", "network.width=4097"),
    ("augmentation.rotate_degrees=180", "augmentation.rotate_degrees=180.1"),
    ("augmentation.scale=0.999", "augmentation.scale=1"),
    ("augmentation.intensity_scale=0.999", "augmentation.intensity_scale=1"),
    ("augmentation.probability=1", "augmentation.probability=1.001"),
    ("evaluation.resamples=100", "evaluation.resamples=99"),
    ("operating_point.target=0.999", "operating_point.target=1"),
    ("operating_point.target=0.001", "operating_point.target=0"),
    ("seed=4294967295", "seed=4294967296"),
    ("data.label_source=ABC", "data.label_source=AB"),
    ("data.splits.test=0.1500005", "data.splits.test=0.150002"),
    ("{task: multilabel, findings: [malignant, calcified]}", "{task: multilabel, findings: [malignant]}"),
    (
        "search={ranges: {training.weight_decay: {low: 0, high: 0.001}}}",
        "search={ranges: {training.weight_decay: {low: 0.001, high: 0.001}}}",
    ),
    (
        "search={ranges: {training.weight_decay: {low: 1e-9, high: 1, log: true}}}",
        "search={ranges: {training.weight_decay: {low: 0, high: 1, log: true}}}",
    ),
    (
        "search={ranges: {network.width: {choices: [4, 8]}}}",
        "search={ranges: {network.width: {choices: [4]}}}",
    ),
]


def overrides_of(text):
    """One override; of a task also the findings that go with it."""
    if not text.startswith("{"):
        return [text]
    tree = yaml.safe_load(text)
    return [f"task={tree['task']}", f"data.findings={tree['findings']}"]


@pytest.mark.parametrize(("accepted", "refused"), LIMITS, ids=[refused for _, refused in LIMITS])
def test_a_limit_is_where_it_is_said_to_be(config_file, accepted, refused):
    load_config(config_file, overrides_of(accepted))
    section = re.split(r"[.=]", overrides_of(refused)[-1])[0]
    with pytest.raises(ConfigError, match=rf"mine\.yaml: {section}\b"):
        load_config(config_file, overrides_of(refused))


@pytest.mark.parametrize(
    ("accepted", "refused", "says"),
    [
        (f"{2**53}", f"{2**53 + 1}", "a number of more than 9,007,199,254,740,992"),
        (f"-{2**53}", f"-{2**53 + 1}", "a number of more than"),
        ("0" * 99 + "1", "0" * 100 + "1", "a number of more than"),
        ("[" * 20 + "]" * 20, "[" * 21 + "]" * 21, "sections lie more than 20 deep"),
        ("x" * 1_000_000, "x" * 1_000_001, "1,000,001 characters, expected at most 1,000,000"),
    ],
    ids=["largest", "smallest", "longest", "deepest", "most"],
)
def test_a_limit_of_plain_values_is_where_it_is_said_to_be(accepted, refused, says):
    parse_yaml(accepted)
    with pytest.raises(yaml.YAMLError, match=says):
        parse_yaml(refused)


def test_only_a_long_key_or_value_is_cut_in_a_message(config_file):
    for length, shown in ((100, "k" * 100), (101, "k" * 100 + "...")):
        with pytest.raises(ConfigError, match=rf"mine\.yaml: {shown}: unknown key".replace("...", r"\.\.\.")):
            load_config(config_file, [f"{'k' * length}=1"])
    for length, shown in ((98, f"'{'v' * 98}'"), (99, f"'{'v' * 49}...{'v' * 24}'")):
        with pytest.raises(ConfigError, match=re.escape(f"name: {shown} is not accepted")):
            load_config(config_file, [f"network.name={'v' * length}"])
