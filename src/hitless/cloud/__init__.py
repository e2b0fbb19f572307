"""Releases of a service on AWS: decides and drives; `hitless.aws` makes the calls.

Arrows point down: `status` → `repair` → `release` → `stage` → `records` → `transform`. `adoption` is beside `repair`.
`release` and `adoption` plan by `transition`. `setup` creates the stacks that all of them need.

To see what a release may change, and in which order, read `transition.py`, then `transform/updates.py`.
"""
