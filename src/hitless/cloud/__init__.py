"""A service on AWS: its stacks, its releases, what they cost. Decides and drives; `hitless.aws` does the calls."""
