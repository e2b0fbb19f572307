"""Builds, stores and unpacks the reproducible artifacts of a service."""
