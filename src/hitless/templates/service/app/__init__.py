"""The code of the service: `api.py` has the routes, `greetings.py` the logic."""
