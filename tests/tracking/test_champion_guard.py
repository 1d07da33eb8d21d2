"""Only a name that never had a version gets its champion without the gate."""

import pytest

from pipeline.config.experiment import Tracking
from pipeline.errors import ModelError
from pipeline.tracking.promotion import find_version
from pipeline.tracking.registry import register
from pipeline.tracking.runs import open_run


@pytest.fixture
def registered(project):
    """Register a version of ``m``, with a logged model that has no files."""

    def one():
        with open_run(Tracking(experiment="e"), name="run", tags={}) as made:
            client, run_id = made.store.client, made.run_id
            experiment = client.get_run(run_id).info.experiment_id
            model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
            from mlflow.entities import LoggedModelOutput

            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
            return register(made, name="m", description="d", tags={}), made.store

    return one


def remove_alias(client):
    client.delete_registered_model_alias("m", "champion")


def delete_version(client):
    client.delete_model_version("m", "1")


def test_first_version_becomes_champion_and_the_second_does_not(registered):
    first, _ = registered()
    second, store = registered()
    assert [each.alias for each in (first, second)] == ["champion", "challenger"]
    assert find_version(store, "models:/m@champion").version == "1"
    assert "lets the gate compare" in second.describe()


@pytest.mark.parametrize("take_away", [remove_alias, delete_version])
def test_version_after_a_lost_champion_does_not_take_its_place(registered, take_away):
    _, store = registered()
    take_away(store.client)
    second, store = registered()
    third, store = registered()
    for version in (second, third):
        assert version.alias == "challenger"
        assert "m has no champion to compare with" in version.describe()
        assert "give the alias `champion` to the version that is in use" in version.describe()
    assert "champion" not in store.client.get_registered_model("m").aliases
    with pytest.raises(ModelError, match=r"^models:/m@champion: m has no champion to compare with: .* give the alias"):
        find_version(store, "models:/m@champion")
    store.client.set_registered_model_alias("m", "champion", "2")
    assert find_version(store, "models:/m@champion").version == "2"
