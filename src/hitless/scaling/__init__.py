"""How many workers a function needs, as pure decisions. `benchmarks/scaling` simulates them."""
