"""A service's folder for tests that read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hitless.errors import ServiceFileError
from hitless.service.load import load_service
from hitless.service.model import Service

HEAD = "service: demo\nprovider: {name: aws, runtime: python3.11}\n"
SCALED = (
    HEAD
    + "functions: {{api: {{handler: handlers.api, provisionedConcurrency: {ready}}}}}\n"
    + "custom: {{hitless: {{provisioned: {{{name}: {{max: {most}}}}}}}}}\n"
).replace("provider: {name: aws, runtime: python3.11}", "provider: {{name: aws, runtime: python3.11}}")
API = "functions: {api: {handler: handlers.api, events: [http: GET /]}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "repository" / "service"
    home.mkdir(parents=True)
    (home / "handlers.py").write_text("def api(event, context): ...\ndef other(event, context): ...\n")
    return home


def load(
    folder: Path,
    text: str | None = None,
    *,
    stage: str = "dev",
    options: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Service:
    if text is not None:
        (folder / "serverless.yml").write_text(text, encoding="utf-8")
    return load_service(folder, stage=stage, options=options, environ=environ or {})


def fault(folder: Path, text: str | None = None, *, environ: Mapping[str, str] | None = None) -> ServiceFileError:
    with pytest.raises(ServiceFileError) as caught:
        load(folder, text, environ=environ)
    return caught.value
