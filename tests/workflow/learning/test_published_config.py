"""A configuration that leaves the machine says neither where files lie nor a password."""

from cohorts import tiny_config

from pipeline.config.experiment import Config
from pipeline.workflow.learning.provenance import public_config, public_values
from pipeline.workflow.learning.run_folder import RunRecord, read_record


def test_paths_are_names_and_urls_have_no_password(tmp_path):
    tracking = {"uri": "postgresql://me:pass@host/db", "artifacts": str(tmp_path / "deep" / "artifacts")}
    config = Config.model_validate(tiny_config(tmp_path / "hospital" / "m.csv", tmp_path, tracking=tracking))
    public = public_config(config)
    assert public["data"]["manifest"] == "m.csv"
    assert public["tracking"]["artifacts"] == "artifacts"
    assert public["tracking"]["uri"] == "postgresql://***@host/db"
    assert public["training"] == config.model_dump(mode="json")["training"]
    assert str(tmp_path) not in str(public)


def test_relative_paths_stay(tmp_path):
    config = Config.model_validate(
        {**tiny_config(tmp_path / "m.csv", tmp_path), "output": "runs/mine", "tracking": {"uri": "sqlite:///a/b.db"}}
    )
    public = public_config(config)
    assert (public["output"], public["tracking"]["uri"]) == ("runs/mine", "sqlite:///a/b.db")


def test_record_of_an_earlier_release_is_read_without_its_password(tmp_path):
    RunRecord("0", "run", {"tracking": {"uri": "http://me:pass@host"}}, "digest").write(tmp_path)
    record = read_record(tmp_path)
    assert record is not None
    assert record.config == {"tracking": {"uri": "http://***@host"}}


def test_provenance_of_an_older_model_is_published_like_a_new_one():
    old = {
        "config": {"data": {"manifest": "/hospital/m.csv", "lesions": ["/a/b.json", "c"]}},
        "git_commit": "0a1b",
        "seed": 3,
    }
    assert public_values(old) == {
        "config": {"data": {"manifest": "m.csv", "lesions": ["b.json", "c"]}},
        "git_commit": "0a1b",
        "seed": 3,
    }
    assert public_values({"uri": "file:///home/me/mlruns"}) == {"uri": "file://mlruns"}
