"""`custom.wsgi` of the plugin serverless-wsgi: a WSGI application (Flask, Django, …) in the place of a handler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hitless.service.handlers import check_handler
from hitless.service.model import WsgiApp
from hitless.service.value import Value

PLUGIN = "serverless-wsgi"
HANDLER = "wsgi_handler.handler"
_OLDER_HANDLER = "wsgi.handler"


def read_wsgi(root: Value, folder: Path) -> WsgiApp | None:
    """The application that the plugin would pack, or None. ServiceFileError if the folder does not define it."""
    plugins, settings = root.get("plugins"), root.get("custom", "wsgi")
    if plugins is not None and isinstance(plugins.data, Mapping):
        plugins = plugins.get("modules")
    app = settings.get("app") if settings is not None else None
    if plugins is None or app is None or PLUGIN not in [plugin.text() for plugin in plugins.items()]:
        return None
    assert settings is not None
    types = settings.optional("textMimeTypes", Value.items, ())
    return WsgiApp(check_handler(app, folder), tuple(one.text() for one in types))


def is_wsgi(handler: Value) -> bool:
    """Whether the plugin's handler is meant, under its name of today or of before."""
    return handler.text() in (HANDLER, _OLDER_HANDLER)
