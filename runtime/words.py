"""Reasons as sentences, in the languages of those who read them (rule R13)."""

import gettext
from functools import cache
from pathlib import Path
from string import Formatter

from fleet.model import Why
from runtime.sentences import WORDS, sentences

LANGUAGES = ("en", "es")  # the first is the catalogue's own
LOCALE = Path(__file__).parent / "locale"


def explain(why: Why, language: str = "en") -> str:
    """`why` as a sentence; a code that the catalogue lacks is shown with its values. Never raises.

    A reason may name another one's code as `because`, and carries its values too: it becomes that one's sentence.
    """
    translations = catalogue("relevo", language)
    values = _worded(why.values, translations)
    if because := values.pop("because", ""):
        rest = {name: value for name, value in why.values.items() if name != "because"}
        values["because"] = explain(Why(because, rest), language)
    for sentence in sentences(why.code):
        if placeholders(sentence) <= values.keys():
            return translations.gettext(sentence).format_map(values)
    told = ", ".join(f"{name} = {value}" for name, value in values.items())
    return f"{why.code}: {told}" if told else why.code


def placeholders(sentence: str) -> frozenset[str]:
    """The names of the values that `sentence` speaks of."""
    return frozenset(name for _, name, _, _ in Formatter().parse(sentence) if name)


def _worded(
    values: dict[str, str | int | float], translations: gettext.NullTranslations
) -> dict[str, str]:
    """Values as they read, lists word by word. What is empty, or a time that never began (below 0), is not known."""
    worded = {}
    for name, value in values.items():
        if value == "" or (isinstance(value, int | float) and value < 0):
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value)
        words = WORDS.get(name)
        worded[name] = (
            ", ".join(_word(part, words, translations) for part in text.split(", "))
            if words
            else text
        )
    return worded


def _word(part: str, words: dict[str, str], translations: gettext.NullTranslations) -> str:
    return translations.gettext(words[part]) if part in words else part


@cache
def catalogue(domain: str, language: str) -> gettext.NullTranslations:
    """The translations of a `domain`. English is the fallback of a language whose catalogue was not compiled."""
    if language not in LANGUAGES[1:]:
        return gettext.NullTranslations()
    try:
        return gettext.translation(domain, LOCALE, [language], fallback=True)
    except (OSError, UnicodeDecodeError):  # a .mo that is none
        return gettext.NullTranslations()
