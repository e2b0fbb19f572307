"""From a package to a release that is live: `deploy`, `rollback`, `abort`, `promote`, and their steps."""
