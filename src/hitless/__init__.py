"""hitless ships a JSON REST API many times a day without failing a single request."""

__version__ = "0.1.0"
