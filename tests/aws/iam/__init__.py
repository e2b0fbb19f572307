"""Least privilege: checks recorded calls against the policies of the roles that made them, by a simulator of IAM."""
