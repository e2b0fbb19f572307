"""The forge that hosts the team's repository: webhooks, pull requests, commit statuses. GitHub is in `github.py`."""
