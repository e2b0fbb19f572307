"""Writes sbom.cdx.json: the packages that scripts/lock locked for hitless. The wheel contains it (PEP 770)."""

import json
import re
import tomllib
from pathlib import Path

from hitless.artifact.sbom import bill, library

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "src/hitless/templates/service/deploy"


def own_bill() -> str:
    """The document's text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    python = re.findall(r"^([^\s=#]+)==(\S+)", (LOCKS / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    node = json.loads((LOCKS / "package-lock.json").read_text("utf-8"))["packages"]
    npm = [(name.rpartition("node_modules/")[2], one["version"]) for name, one in node.items() if name]
    found = [library("pypi", *one) for one in python] + [library("npm", *one) for one in npm]
    return bill(project["name"], project["version"], found) + "\n"


if __name__ == "__main__":
    (ROOT / "sbom.cdx.json").write_text(own_bill(), "utf-8")
