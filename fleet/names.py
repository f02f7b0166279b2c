"""Names and addresses as the network writes them: domains as A-labels, hosts as IP literals."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

from fleet.model import DOMAIN, Domain

LONGEST = 253  # octets of a name in text. Source: RFC 1035 §2.3.4
LONGEST_LABEL = 63
NONE = "is not a domain name"
# What people write in its place, by a character that no name has.
MISTAKEN = {
    "/": "it is the address of a page",
    "@": "it is a mail address",
    ":": "it has a port, or is an address",
    "*": "each name is written out, there are no wildcards",
    " ": "it holds a space",
}


def canonical_domain(text: str) -> Domain:
    """`text` in lower case, as A-labels, without a trailing dot. Raises ValueError with the reason.

    Source: RFC 5891 (IDNA 2008), with the mapping of UTS #46.
    """
    name = text.removesuffix(".")
    if len(name) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    if name.isascii():
        name = name.lower()
    try:
        if not name.isascii():
            name = idna.encode(name, uts46=True).decode()
        elif "xn--" in name:
            name = ".".join(_checked_label(label) for label in name.split("."))
    except (idna.IDNAError, UnicodeError) as error:
        raise ValueError(f"is not an internationalized domain name: {error}") from error
    if not DOMAIN.match(name):
        raise ValueError(f"{NONE}: {why}" if (why := _why_none(name)) else NONE)
    return Domain(name)


def readable(domain: str) -> str:
    """`domain` in its own script, where it is an internationalized one."""
    try:
        return idna.decode(domain) if "xn--" in domain else domain
    except (idna.IDNAError, UnicodeError):
        return domain


def _why_none(name: str) -> str:
    """What of `name`, of ASCII, is not as names are; empty where that is hard to say. Source: RFC 1035 §2.3.1."""
    for character, why in MISTAKEN.items():
        if character in name:
            return why
    if not name:
        return "it is empty"
    labels = name.split(".")
    for label in labels:
        if not label:
            return "a label is empty: two dots together, or one at an end"
        if len(label) > LONGEST_LABEL:
            return f"a label is longer than {LONGEST_LABEL} characters"
        if label.startswith("-") or label.endswith("-"):
            return f"the label {label!r} begins or ends with a hyphen"
    if len(labels) == 1:
        return "it has one label only, and no top-level domain"
    return "it ends in a number, as an IP address does" if labels[-1].isdigit() else ""


def _checked_label(label: str) -> str:
    return idna.alabel(idna.ulabel(label)).decode() if label.startswith("xn--") else label


def address(text: str) -> IPv4Address | IPv6Address:
    """The address that the literal `text` names. Raises ValueError with the reason."""
    try:
        found = ip_address(text)
    except ValueError:
        raise ValueError("is not an IP address") from None
    if isinstance(found, IPv6Address):
        if found.scope_id:
            raise ValueError("has a zone index, which only one machine understands")
        if found.ipv4_mapped:
            raise ValueError(f"is an IPv4 address in disguise: write {found.ipv4_mapped}")
    if found.is_multicast or found.is_unspecified:
        raise ValueError("is not the address of one host")
    return found
