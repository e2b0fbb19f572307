"""The code of the service: `api.py` answers requests, `greetings.py` does the work."""
