"""Rehearsals: the candidate rolls out over a copy of the live release, under load, in a sandbox."""
