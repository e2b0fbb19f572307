"""The templates of a release, pure: from what `osls package` compiled and what is live.

`desired` makes the template that a release wants, independent of what is live. `updates` merges it with what is live,
so that nothing that serves is replaced, removed or moved before its successor exists.
"""
