"""A service with the plugin serverless-wsgi: loaded, packaged, and its application run from the artifact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hitless.artifact.build import build
from hitless.artifact.store import ArtifactStore
from hitless.service.model import WsgiApp
from tests.component.service_folder import HEAD, fault, folder, load
from tests.unit.test_wsgi import EVENT_2

__all__ = ["folder"]

pytestmark = pytest.mark.component

TEXT = HEAD.replace("{", "{{").replace("}", "}}") + (
    "plugins: [serverless-wsgi]\ncustom: {{wsgi: {{app: {app}, textMimeTypes: [application/x-own]}}}}\n"
    "functions: {{api: {{handler: {handler}, events: [http: ANY /]}}}}\n"
)
APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/x-own")])
    return [environ["PATH_INFO"].encode()]
"""


@pytest.mark.parametrize("handler", ["wsgi_handler.handler", "wsgi.handler"])
def test_the_wsgi_plugins_handler_runs_the_application_from_the_artifact(
    folder: Path, handler: str, tmp_path: Path
) -> None:
    (folder / "api").mkdir()
    (folder / "api" / "main.py").write_text(APP)
    service = load(folder, TEXT.format(app="api/main.app", handler=handler))
    assert service.wsgi == WsgiApp("api/main.app", ("application/x-own",))
    assert service.functions[0].handler == "wsgi_handler.handler"
    assert not any("plugin" in notice for notice in service.notices)

    store = ArtifactStore(tmp_path / "artifacts")
    artifact = build(service, store, say=lambda _: None).by_function["api"]
    run = f"import json, wsgi_handler; print(json.dumps(wsgi_handler.handler({EVENT_2!r}, None)))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", run],
        cwd=store.unpack(artifact.digest),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    response = json.loads(done.stdout)
    assert (response["body"], response["isBase64Encoded"]) == ("/a b", False)


def test_a_missing_wsgi_application_is_an_error(folder: Path) -> None:
    wrong = fault(folder, TEXT.format(app="handlers.application", handler="wsgi_handler.handler"))
    assert "custom.wsgi.app: handlers.py does not define application" in wrong.message


def test_without_the_wsgi_plugin_its_handler_is_a_missing_module(folder: Path) -> None:
    text = TEXT.replace("plugins: [serverless-wsgi]\n", "").format(app="handlers.api", handler="wsgi_handler.handler")
    assert "there is no wsgi_handler.py" in fault(folder, text).message
