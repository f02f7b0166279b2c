"""The language of what people read: asked for by `?lang=`, or by Accept-Language (RFC 9110 §12.5.4)."""

from aiohttp import web

from runtime.words import LANGUAGES


def language(request: web.Request) -> str:
    """One of LANGUAGES; English unless another one is preferred."""
    asked = request.query.get("lang", "")
    if asked in LANGUAGES:
        return asked
    best, best_weight = LANGUAGES[0], 0.0
    for part in request.headers.get("Accept-Language", "").split(",")[:20]:
        tag, _, parameter = part.strip().partition(";")
        primary = tag.split("-", 1)[0].lower()
        if primary in LANGUAGES and (weight := _weight(parameter)) > best_weight:
            best, best_weight = primary, weight
    return best


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
