"""Sends load to a running service while releases ship and processes are killed. Every request is accounted for.

`run.run_drill` runs a drill. Separate processes (`sender`) send the load on a fixed schedule (`pace`); their records
come back in binary (`wire`) and are added up in `tally`. The `Shipper` ships releases as a user would ship them. No
module here knows how the service is run.
"""
