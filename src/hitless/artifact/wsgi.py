"""The files that the plugin serverless-wsgi packs for `custom.wsgi.app`, with a module of ours in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hitless.artifact import serverless_wsgi
from hitless.service.model import WsgiApp

_HANDLER = """\
\"\"\"Added by hitless in place of the plugin serverless-wsgi: the WSGI application as a Lambda handler.\"\"\"

import os

import serverless_wsgi

handler = serverless_wsgi.make_handler(os.path.dirname(os.path.abspath(__file__)))
"""


def wsgi_files(wsgi: WsgiApp | None) -> Mapping[str, bytes]:
    """Name in the artifact → content; empty without a WSGI application."""
    if wsgi is None:
        return {}
    configuration = {"app": wsgi.app, "text_mime_types": list(wsgi.text_mime_types)}
    return {
        "wsgi_handler.py": _HANDLER.encode(),
        "serverless_wsgi.py": Path(serverless_wsgi.__file__).read_bytes(),
        serverless_wsgi.CONFIGURATION: json.dumps(configuration).encode(),
    }
