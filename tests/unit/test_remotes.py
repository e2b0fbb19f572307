"""A remote's address is checked, and the words for the host name its own folders and the stage."""

from __future__ import annotations

import pytest

from hitless.cli.remote import parse_url
from hitless.cli.remotes import Remote, remote_words
from hitless.errors import UsageError

pytestmark = pytest.mark.unit

BOX = Remote("root@box", 2222, "/var/lib/hitless/clock")
ITS_FOLDERS = ["--data-dir", BOX.data, "--service-dir", f"{BOX.data}/source/app"]


def test_addresses_name_user_host_port_and_engine() -> None:
    assert parse_url("ssh://root@box:2222/clock", "other") == BOX
    assert parse_url("ssh://box", "clock") == Remote("box", None, BOX.data)
    assert parse_url("ssh://box/srv/data/", "clock") == Remote("box", None, "/srv/data")


@pytest.mark.parametrize(
    "url",
    [
        "root@box",
        "http://box/clock",
        "ssh://-oProxyCommand=x/clock",
        "ssh://root:secret@box/clock",
        "ssh://box:x/clock",
        "ssh://box/a b",
        "ssh://box/../clock",
        "ssh://box",
        "ssh://ro;ot@box/clock",
    ],
)
def test_addresses_that_ssh_or_a_shell_would_misread_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        parse_url(url, "")


def test_the_host_gets_its_own_folders_and_always_the_stage() -> None:
    words = ["deploy", "--remote", "box", "--service-dir=/home/me/app", "-m", "a b", "--data-dir", "x"]
    assert remote_words(words, BOX, "app", "prod") == ["deploy", "-m", "a b", "--stage", "prod", *ITS_FOLDERS]
    assert remote_words(["status", "-s", "dev"], BOX, "app", "dev") == ["status", "-s", "dev", *ITS_FOLDERS]
