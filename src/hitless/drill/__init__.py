"""Load on a running service while releases ship and processes are killed. Every request is accounted for.

`run.run_drill` is the whole of it. Separate processes (`sender`) send the load, on a schedule that is fixed
beforehand (`pace`); what they saw comes back as binary records (`wire`) and is added up in `tally`. Releases go out
through the `Shipper` protocol, as a user would ship them. Nothing in here knows how the service is run.
"""
