"""From a git push to a live release: the runs of each stage, their steps, approvals, rehearsals and who is told."""
