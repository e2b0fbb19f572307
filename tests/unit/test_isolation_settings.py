"""The owner's settings of isolation, and the user ids of handlers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hitless.errors import MachineError
from hitless.workers.isolation import HANDLER_UIDS, handler_uid, handlers_see, isolation_settings, place_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HITLESS_ISOLATION", "on"),
        ("HITLESS_HANDLER_PATHS", "data"),
        ("HITLESS_HANDLER_PATHS", "/srv/data:/"),
        ("HITLESS_HANDLER_PATHS", "//"),
    ],
)
def test_an_invalid_setting_of_isolation_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(MachineError, match=variable):
        isolation_settings("shop", {variable: text})


def test_a_listed_folder_is_shown_with_all_below_and_no_other() -> None:
    environ = {"HITLESS_HANDLER_PATHS": "/srv/data:/run/postgresql"}
    assert handlers_see(Path("/srv/data/a/b.db"), environ)
    assert not handlers_see(Path("/srv/database"), environ)
    assert not handlers_see(Path("/srv/data/../other"), environ)
    assert handlers_see(Path("/srv/other"), {"HITLESS_ISOLATION": "off"})


def test_a_service_keeps_its_user_id_and_gets_none_that_a_container_or_a_user_has(tmp_path: Path) -> None:
    lent = tmp_path / "subuid"
    first = handler_uid("shop", lent)
    assert first in HANDLER_UIDS
    assert first == handler_uid("shop", lent) != handler_uid("bank", lent)
    lent.write_text(f"someone:100000:65536\nanother:{first}:1\n")
    assert handler_uid("shop", lent) != first
    lent.write_text(f"someone:{HANDLER_UIDS[0]}:{len(HANDLER_UIDS)}\n")
    with pytest.raises(MachineError, match="are in use"):
        handler_uid("shop", lent)


def test_only_root_gives_handlers_a_user_id() -> None:
    assert bool(isolation_settings("shop", {})["uid"]) is (os.getuid() == 0)
    assert isolation_settings("shop", {"HITLESS_ISOLATION": "off"})["uid"] == 0


def test_each_service_has_a_place_that_no_other_gets_later(tmp_path: Path) -> None:
    assert [place_of(name, tmp_path) for name in ("shop", "bank", "shop", "", "zoo")] == [1, 2, 1, 0, 3]
    assert (tmp_path / "users.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "users.json").write_text('["", "shop", "ba')
    with pytest.raises(MachineError, match=r"users\.json"):
        place_of("bank", tmp_path)
    with pytest.raises(MachineError, match="users"):
        place_of("shop", tmp_path / "missing")


@pytest.mark.skipif(os.getuid() == 0, reason="root needs no lender")
def test_a_unit_names_the_lender_and_isolation_off_needs_none(tmp_path: Path) -> None:
    environ = {"HITLESS_USERS": "/run/users.sock", "HOME": str(tmp_path)}
    assert isolation_settings("shop", environ) == {"mode": "", "paths": [], "users": "/run/users.sock", "place": 1}
    assert isolation_settings("shop", environ | {"HITLESS_ISOLATION": "off"})["uid"] == 0
