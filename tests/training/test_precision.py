"""Precision: bf16 only where it is no slower than what it replaces."""

import pytest

from pipeline.config.training import Training
from pipeline.training import precision
from pipeline.training.precision import cpu_has_bf16, precision_of


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_follows_the_processor(monkeypatch, capsys, native, expected):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: native)
    assert precision_of(Training(precision="auto", accelerator="cpu")) == expected
    assert precision_of(Training(accelerator="cpu")) == "32-true"
    assert capsys.readouterr().err == ""


def test_emulated_bf16_is_used_when_asked_for_and_said(monkeypatch, capsys):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    assert precision_of(Training(precision="bf16-mixed", accelerator="cpu")) == "bf16-mixed"
    assert "emulates it" in capsys.readouterr().err


def test_processor_flags_decide(tmp_path):
    for text, expected in (("flags : sse avx512_bf16 amx_tile", True), ("flags : sse avx2", False)):
        (tmp_path / "cpuinfo").write_text(text)
        assert cpu_has_bf16(tmp_path / "cpuinfo") is expected
    assert not cpu_has_bf16(tmp_path / "absent")
