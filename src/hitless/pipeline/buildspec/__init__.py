"""Buildspec 0.2, as CodeBuild runs it, on this machine."""
