"""The layer's zip, the same bytes wherever it is made."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from hitless.artifact.archive import ZipMember, digest_of, write
from hitless.aws.buckets import artifact_key
from hitless.aws.layer import hitless_wrapper
from hitless.cloud.transform.model import Code

WRAPPER = Path(hitless_wrapper.__file__)


def write_layer(path: Path) -> None:
    """Write the zip to a path that is not there yet."""
    write(path, [ZipMember("python/hitless_wrapper.py", WRAPPER.read_bytes())])


@cache
def layer_code() -> Code:
    """The layer's digest, key and sizes."""
    with tempfile.TemporaryDirectory(prefix="hitless-layer-") as place:
        path = Path(place) / "layer.zip"
        write_layer(path)
        sha256 = digest_of(path).removeprefix("sha256:")
        return Code(sha256, artifact_key(sha256), path.stat().st_size, WRAPPER.stat().st_size)
