"""A simulator of the scaling decisions: the same pure function on virtual time."""
