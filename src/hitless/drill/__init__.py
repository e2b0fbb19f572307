"""Real load on a real service while releases ship and things break, with every request accounted for.

`run.run_drill` is the whole of it. The load comes from processes of its own (`sender`), by a schedule that is fixed
beforehand (`pace`); what they saw comes back as binary records (`wire`) and is added up in `tally`. Releases go out
through the `Shipper` protocol, as a user would ship them. Nothing in here knows how the service is run.
"""
