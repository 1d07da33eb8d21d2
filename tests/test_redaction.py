"""Passwords of URLs are in nothing that is printed or written."""

import pytest

from pipeline.cli import run
from pipeline.errors import CaseError, Code, PipelineError
from pipeline.redaction import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:p@ss@host:5432/db", "postgresql://***@host:5432/db"),
        ("at https://token@host/x and s3://key:secret@bucket/y", "at https://***@host/x and s3://***@bucket/y"),
        ("https://h/a.nii?X-Amz-Signature=ab12&page=3", "https://h/a.nii?X-Amz-Signature=***&page=3"),
        ("https://h/a?sv=1&sig=abc%2F", "https://h/a?sv=1&sig=***"),
        ("postgresql://h/db?sslpassword=x&sslmode=require", "postgresql://h/db?sslpassword=***&sslmode=require"),
    ],
)
def test_secrets_are_hidden(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    ["models:/malignancy@champion", "s3://bucket/a@b/c.nii", "https://h/p?signal=3", "mail me@host", "/a/b@c", ""],
)
def test_everything_else_stays(text):
    assert redact(text) == text


def test_every_error_of_ours_hides_them():
    assert str(PipelineError("s3://k:v@b/x: gone")) == "s3://***@b/x: gone"
    assert str(CaseError(Code.E_NOT_FOUND, "s3://k:v@b/x", "gone")) == "s3://***@b/x: E_NOT_FOUND: gone"


def test_command_hides_them_in_what_the_user_typed(capsys, tmp_path):
    assert run(["check", "ftpx://me:pass@host/folder"]) == 2
    said = capsys.readouterr().err
    assert "***@host/folder" in said
    assert "pass" not in said


def test_nothing_of_a_run_holds_them(tmp_path, monkeypatch):
    from pipeline.config.experiment import Tracking
    from pipeline.tracking.runs import open_run

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    secret = "s3://key:hush@bucket/model"
    with open_run(Tracking(experiment="e"), name=f"score {secret}", tags={"recalibrated_from": secret}) as made:
        made.params({"tracking": {"uri": secret}})
        made.tags({"model": secret})
        made.text(f"from {secret}", "model.txt")
    found = made.store.client.get_run(made.run_id)
    assert found.data.params["tracking.uri"] == "s3://***@bucket/model"
    assert "hush" not in str(found.data) + str(found.info)
    (text,) = tmp_path.rglob("model.txt")
    assert text.read_text() == "from s3://***@bucket/model"
