"""Domains as people write them, and the one form that everything else sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.documents import BadDocument, read
from fleet.model import DOMAIN, Domain, SiteId
from fleet.names import canonical_domain, readable
from tests.unit.fleets import GOOD


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("WWW.Example.ORG.", "www.example.org"),
        ("Ñandú.example.org", "xn--and-6ma2c.example.org"),
        ("XN--AND-6MA2C.example.org", "xn--and-6ma2c.example.org"),
        ("faß.example", "xn--fa-hia.example"),
        ("日本語。jp", "xn--wgv71a119e.jp"),
        ("_dmarc.a_b.example", "_dmarc.a_b.example"),
    ],
)
def test_names_of_any_script_have_one_form(written: str, canonical: str) -> None:
    """Case, trailing dot, script and A-label all lead to the same name."""
    assert canonical_domain(written) == canonical


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "it is empty"),
        ("https://example.org/", "the address of a page"),
        ("example.org:8080", "it has a port"),
        ("web@example.org", "a mail address"),
        ("*.example.org", "no wildcards"),
        ("a b.example.org", "holds a space"),
        ("a..example.org", "a label is empty"),
        ("-a.example.org", "'-a' begins or ends with a hyphen"),
        ("a-.example.org", "'a-' begins or ends with a hyphen"),
        ("localhost", "one label only"),
        ("10.0.0.1", "ends in a number"),
        ("a" * 64 + ".example.org", "longer than 63"),
        ("a." * 130 + "org", "longer than 253"),
        ("☃.example.org", "U+2603 at position 1"),
        ("xn--zzzzzz.example.org", "Invalid A-label"),
        ("ex\u200dample.org", "U+200D not allowed"),
    ],
)
def test_what_is_no_name_is_told_why(written: str, why: str) -> None:
    """The usual mistakes have sentences of their own."""
    with pytest.raises(ValueError, match=r"^is ") as refused:
        canonical_domain(written)
    assert why in str(refused.value)


@given(st.text(max_size=80) | st.from_regex(r"[a-zñß.日x-]{1,40}", fullmatch=True))
def test_a_canonical_name_is_its_own_canonical_form(written: str) -> None:
    """Whatever is accepted is a name to DNS, is accepted again unchanged, and so is its readable form."""
    try:
        canonical = canonical_domain(written)
    except ValueError:
        return
    assert DOMAIN.match(canonical)
    assert canonical_domain(canonical) == canonical
    assert canonical_domain(readable(canonical)) == canonical


def test_one_domain_has_one_site_in_whatever_script() -> None:
    """A name written in its script on one site and as an A-label on another is told as a duplicate, readably."""
    text = GOOD.replace("[huerto.example.org]", "[ñandú.example.org]").replace(
        "[blog.example.org]", "[XN--AND-6MA2C.example.org]"
    )
    with pytest.raises(BadDocument) as bad:
        read(text, "f")
    assert "(ñandú.example.org) belongs to the site huerto already" in str(bad.value)
    fleet = read(GOOD.replace("[huerto.example.org]", "[ñandú.example.org]"), "f")
    assert fleet.sites[SiteId("huerto")].domains == (Domain("xn--and-6ma2c.example.org"),)
