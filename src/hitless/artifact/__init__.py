"""Builds, stores and unpacks the reproducible artifacts of a service."""

from hitless.artifact.build import build
from hitless.artifact.model import Artifact, BuiltArtifacts
from hitless.artifact.store import ArtifactStore

__all__ = ["Artifact", "ArtifactStore", "BuiltArtifacts", "build"]
