"""A service on AWS: its stacks, its releases, what they cost. Decides and drives; `hitless.aws` does the calls.

Arrows point down: `standing` → `status` → `repair` → `release` → `stage` → `records` → `transform`. `adoption` stands
beside `repair`; `setup` makes what all of them stand on, and needs `transform` alone.
"""
