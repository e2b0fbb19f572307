"""What is kept of releases, in the artifact bucket: their records, how they ended, their receipts."""
