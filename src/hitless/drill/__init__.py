"""Load on a running service while releases ship and processes are killed. Every request is accounted for.

`run.run_drill` runs a drill. Separate processes (`sender`) send the load, on a schedule that is fixed
beforehand (`pace`); their records come back in binary (`wire`) and are added up in `tally`. Releases go out
by the `Shipper`, as a user would ship them. No module here knows how the service is run.
"""
