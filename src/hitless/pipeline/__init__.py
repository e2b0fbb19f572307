"""Turns a git push into a live release: runs of each stage, their steps, approvals, rehearsals and notifications."""
