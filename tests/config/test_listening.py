"""The configuration of a listener."""

from __future__ import annotations

import pytest
import yaml

from pipeline.config.file import load_listen_config
from pipeline.errors import ConfigError

STORE = {"name": "pacs", "kind": "c-store", "address": "127.0.0.1", "port": 104, "ae_title": "PACS"}
STOW = {"name": "web", "kind": "stow-rs", "url": "https://example.org/dicom-web", "token_env": "TOKEN"}
LEAST = {"folder": "listen", "calling_ae_titles": ["CT1"], "destinations": [STORE]}


def load(tmp_path, **changes):
    (tmp_path / "listen.yaml").write_text(yaml.safe_dump({**LEAST, **changes}))
    return load_listen_config(tmp_path / "listen.yaml")


def test_least_configuration_listens_on_this_machine_alone(tmp_path):
    config = load(tmp_path)
    assert (config.address, config.port, config.tls) == ("127.0.0.1", 11112, None)
    assert config.folder == tmp_path / "listen"


def test_paths_are_taken_from_the_files_own_folder(tmp_path):
    config = load(
        tmp_path,
        tls={"certificate": "a.pem", "key": "/b.key"},
        watch={"folder": "in"},
        destinations=[{**STORE, "tls": {"ca": "ca.pem"}}, STOW],
    )
    assert (str(config.tls.certificate), str(config.tls.key)) == (str(tmp_path / "a.pem"), "/b.key")
    assert config.watch.folder == tmp_path / "in"
    assert config.destinations[0].tls.ca == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calling_ae_titles": []}, "calling_ae_titles: .* is not accepted"),
        ({"destinations": []}, "destinations: .* is not accepted"),
        ({"destinations": [STORE, dict(STORE)]}, "'pacs' stands twice"),
        ({"destinations": [{**STORE, "kind": "ftp"}]}, "destinations.0"),
        ({"destinations": [{**STORE, "ae_title": "LONGER THAN SIXTEEN"}]}, "ae_title"),
        ({"destinations": [{**STOW, "url": "https://user:word@example.org"}]}, "url"),
        ({"port": 0}, "port: 0 is not accepted"),
        ({"quiet_seconds": -1}, "quiet_seconds"),
        ({"tls": {"certificate": "a.pem"}}, "belong together"),
        ({"tls": {"ca": "a.pem"}}, "needs certificate and key"),
        ({"lissen": 1}, "lissen: unknown key"),
    ],
)
def test_mistake_is_one_line_that_names_it(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, **changes)
    assert "word" not in str(caught.value)
