"""Names and addresses as the network writes them: domains as A-labels, hosts as IP literals."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

from fleet.model import DOMAIN, Domain

LONGEST = 253  # octets of a name in text. Source: RFC 1035 §2.3.4


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
        raise ValueError("is not a domain name")
    return Domain(name)


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
