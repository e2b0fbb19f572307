"""What hitless costs and what it is worth, measured against peers in one run: `scripts/bench`.

Only public tools are used (the `hitless` command, wrk, h2load, /proc), and every claim is a ratio or a bound out of the
same run: machines differ, and this one may be busy with something else.
"""
