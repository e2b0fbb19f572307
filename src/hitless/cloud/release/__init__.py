"""The verbs `deploy`, `rollback`, `abort` and `promote`, and their steps."""
