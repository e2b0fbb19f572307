"""Documents of releases in the artifact bucket: records, rollouts, receipts."""
