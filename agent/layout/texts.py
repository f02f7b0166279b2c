"""Text of configuration that need not be UTF-8: as HostFiles reads it, written back as it was, shown to people."""


def raw(text: str) -> bytes:
    """The bytes that were read as `text`, each that is no UTF-8 as one surrogate. Raises UnicodeEncodeError."""
    return text.encode(errors="surrogateescape")


def text_of(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def shown(text: str) -> str:
    """What can be printed, and sent: a mark where a byte is no UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def is_utf_8(text: str) -> bool:
    return shown(text) == text
