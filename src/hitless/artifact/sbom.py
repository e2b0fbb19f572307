"""Bills of materials: the packages of an artifact as CycloneDX 1.6 JSON (ECMA-424).

A bill depends on the zip's bytes alone: it has no date and no serial number, and its components are sorted.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable
from email.parser import BytesHeaderParser
from pathlib import Path
from urllib.parse import quote

import msgspec

from hitless.artifact.locks import normalised
from hitless.documents import to_text

_DESCRIBES = re.compile(r"(?:.*/)?(?:[^/]+\.dist-info/METADATA|node_modules/(?:@[^/]+/)?[^/@]+/package\.json)")


class Component(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An application, or a package with its URL (ECMA-427)."""

    kind: str = msgspec.field(name="type")
    name: str
    version: str
    ref: str = msgspec.field(name="bom-ref")
    purl: str = ""


def library(registry: str, name: str, version: str) -> Component:
    """One package of `pypi` or `npm`."""
    name = normalised(name) if registry == "pypi" else name
    purl = f"pkg:{registry}/{quote(name)}@{quote(version, safe='')}"
    return Component(kind="library", name=name, version=version, ref=purl, purl=purl)


def bill(name: str, version: str, libraries: Iterable[Component]) -> str:
    """The document of an application that contains these libraries."""
    application = Component(kind="application", name=name, version=version, ref=name)
    components = sorted({one.ref: one for one in libraries}.values(), key=lambda one: one.ref)
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": application}}
    return to_text(head | {"components": components})


def bill_of_artifact(zipped: Path, digest: str) -> str:
    """The bill of a zip: its installed Python distributions and Node.js packages. Others leave no trace in it."""
    found: list[Component] = []
    with zipfile.ZipFile(zipped) as packed:
        for member in filter(_DESCRIBES.fullmatch, packed.namelist()):
            python, text = member.endswith("METADATA"), packed.read(member)
            try:
                told = BytesHeaderParser().parsebytes(text) if python else dict(json.loads(text))
            except (ValueError, TypeError):  # a file of the service that only looks like a package's
                continue
            if told.get("name") and told.get("version"):  # headers are found in any case
                found.append(library("pypi" if python else "npm", str(told["name"]), str(told["version"])))
    return bill("artifact", digest, found)
