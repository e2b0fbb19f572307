"""A stage as every verb finds it: its stack, its aliases and shifts, its shield; and all of it brought to rest."""
