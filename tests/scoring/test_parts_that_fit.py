"""A batch that the device's memory does not hold costs no row; a device with its own networks checks golden scans."""

import json
from multiprocessing.connection import wait

import numpy as np
import pytest
import torch
from tiny_models import write_model, write_scans

from pipeline.errors import UnfinishedError
from pipeline.scoring.engines import local
from pipeline.scoring.engines.in_process import score_cases
from pipeline.scoring.engines.local import score_in_processes
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.memory import PartsThatFit
from pipeline.scoring.model_directory import load_model
from pipeline.scoring.scorer import Scorer

DEVICE = "cpu:0"  # a device as a GPU is one: networks run in the process that asks


def holding(count):
    """The sums of images, on a device whose memory holds ``count`` of them; and the sizes it was given."""
    sizes = []

    def predict(images):
        sizes.append(len(images))
        if len(images) > count:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.sum(axis=(1, 2, 3))[:, None].astype(np.float64)

    return PartsThatFit(predict), sizes


def test_parts_give_every_row_in_order_and_the_size_is_remembered(capsys):
    predict, sizes = holding(3)
    images = np.arange(11 * 4, dtype=np.float32).reshape(11, 1, 2, 2)
    expected = images.sum(axis=(1, 2, 3))[:, None]
    np.testing.assert_array_equal(predict(images), expected)
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    np.testing.assert_array_equal(predict(images[:3]), expected[:3])
    assert sizes[8:] == [2, 1]
    assert "--batch-size 2" in capsys.readouterr().err


def test_a_batch_that_fits_is_run_once_and_says_nothing(capsys):
    predict, sizes = holding(4)
    predict(np.zeros((4, 1, 2, 2), np.float32))
    assert (sizes, capsys.readouterr().err) == ([4], "")


def test_a_single_input_that_does_not_fit_ends_the_run():
    predict, _ = holding(0)
    with pytest.raises(UnfinishedError, match=r"does not hold one input; .*rows written before are kept"):
        predict(np.zeros((2, 1, 2, 2), np.float32))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model")


def test_networks_in_the_asking_process_give_the_rows_of_a_plain_loop_without_idle_waits(model, tmp_path, monkeypatch):
    idle = []

    def noted(connections, timeout):
        heard = wait(connections, timeout=timeout)
        if not heard:
            idle.append(timeout)
        return heard

    monkeypatch.setattr(local, "wait", noted)
    cases = write_scans(tmp_path, 6)
    expected = [row.probability for row in score_cases(Scorer(load_model(model), device="cpu"), cases)]
    setup = ScorerSetup((model,), device=DEVICE)
    rows = score_in_processes(setup, cases, setup.build().identity, workers=1, batch_size=4)
    np.testing.assert_allclose([row.probability for row in rows], expected, rtol=0, atol=1e-6)
    assert max(idle, default=0.0) <= 0.05  # not a minute for workers that have nothing left to say


def test_golden_scans_are_scored_where_the_networks_run(tmp_path):
    folder = write_model(tmp_path / "model")
    setup = ScorerSetup((folder,), device=DEVICE)
    identity = setup.build().identity
    path = folder / "golden" / "golden.json"
    content = json.loads(path.read_text())
    content["member_probabilities"] = np.clip(np.array(content["member_probabilities"]) - 0.01, 0, 1).tolist()
    path.write_text(json.dumps(content))
    with pytest.raises(UnfinishedError, match=r"golden scans before the first scan: a probability differs by 0\.01"):
        next(score_in_processes(setup, write_scans(tmp_path / "scans", 1), identity, workers=1))
