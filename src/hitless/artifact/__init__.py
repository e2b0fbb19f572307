"""Reproducible artifacts of a service: built, stored, unpacked."""

from hitless.artifact.build import build
from hitless.artifact.model import Artifact, BuiltArtifacts
from hitless.artifact.store import ArtifactStore

__all__ = ["Artifact", "ArtifactStore", "BuiltArtifacts", "build"]
