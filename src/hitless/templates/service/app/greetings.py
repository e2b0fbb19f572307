"""The logic of the service, without HTTP."""

from __future__ import annotations

GREETINGS = {"de": "Hallo", "en": "Hello", "es": "Hola", "fr": "Bonjour"}


def greet(name: str, language: str = "en") -> str:
    """A greeting. Raises KeyError for a language that is not in GREETINGS."""
    return f"{GREETINGS[language]}, {name}!"
