"""A stage on AWS: its services, its stack, its shield; and bringing it to a stable state."""
