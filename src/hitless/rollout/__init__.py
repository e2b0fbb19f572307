"""Rollouts: moving a stage's traffic from the live release to a candidate."""
