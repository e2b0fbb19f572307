"""A world clock: what time it is anywhere, when that changes, and when people in several places can meet."""
