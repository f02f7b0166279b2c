"""nginx's configuration, read as nginx reads it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.discover.found import VirtualHost
from agent.discover.nginx import MAIN, Nginx
from agent.discover.nginx_syntax import parse
from tests.unit.hosttree import Texts

PIECES = st.sampled_from(
    [
        "server {", "}", "{", ";", "server_name", "a.example;", "include /a.conf;", "include *.conf;", "root", "${x",
        '"', "'", "\\", "#", "\n", "location / {", "return 301", "https://b.example;", "set $x y;", "listen",
        "content_by_lua_block {", "upstream u {", "fastcgi_pass u;", "http {", "~^(?<a>.+)$", "\x00", "é", "$",
    ]
)  # fmt: skip
NEARLY = st.lists(PIECES | st.text(max_size=8), max_size=40).map(" ".join)


def read(http: str, **more: str) -> Nginx:
    texts = {f"/etc/nginx/{name}.conf": text for name, text in more.items()}
    return Nginx(Texts({MAIN: f"events {{}}\nhttp {{\n{http}\n}}\n", **texts}))


def only(server: str, around: str = "") -> VirtualHost:
    (host,) = read(f"{around} server {{ {server} }}").virtual_hosts
    return host


@settings(deadline=None)
@given(NEARLY | st.text(), NEARLY)
def test_no_text_breaks_the_reader(main: str, other: str) -> None:
    """Whatever two files say that may include each other, reading ends, with an answer."""
    nginx = Nginx(Texts({MAIN: main, "/a.conf": other, "/etc/nginx/b.conf": main}))
    assert all(host.server == "nginx" for host in nginx.virtual_hosts)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=12), max_size=6))
def test_words_in_quotes_come_back_as_they_were(said: list[str]) -> None:
    """Spaces, braces, semicolons and quotes inside quotes belong to the word."""
    quoted = ('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in said)
    (directive,) = parse(f"x {' '.join(quoted)};").directives
    assert directive.args == tuple(said)


def test_words_end_where_nginx_ends_them() -> None:
    """`${x}` is one word, a brace in a bare word opens a block, # inside a word is no comment."""
    parsed = parse("a ${x}y#z \"b {;\"'c'; # d {\nlocation ~ \\.php$ { e; }")
    assert [(d.name, d.args, d.line) for d in parsed.directives] == [
        ("a", ("${x}y#z", "b {;", "c"), 1),
        ("location", ("~", "\\.php$"), 2),
    ]
    assert parsed.troubles == ()


def test_a_program_in_lua_is_passed_over() -> None:
    """Its braces are its own, and the lines after it are counted on."""
    parsed = parse("content_by_lua_block {\n local t = { a = 'b;' }\n}\nnext;")
    assert [(d.name, d.line) for d in parsed.directives] == [("next", 4)]


@pytest.mark.parametrize(
    ("text", "line"),
    [("a;\nb {\nc;", 2), ("a;\n}", 2), ("a;\nb", 2), ('a;\nb "c;\n', 2), ("a;\nb }", 2)],
)
def test_what_makes_no_sense_is_told_with_its_line(text: str, line: int) -> None:
    """Unclosed blocks and quotes, closed ones that were never opened, a directive without its end."""
    parsed = parse(text)
    assert parsed.troubles[0][0] == line
    assert parsed.directives[0].name == "a"


def test_names_are_all_that_a_server_answers_for() -> None:
    """A leading dot stands for the name and all below it; several directives add up."""
    host = only("server_name a.example .b.example; server_name *.c.example www.d.*;")
    assert host.names == ("a.example", "b.example", "*.b.example", "*.c.example", "www.d.*")


@pytest.mark.parametrize(
    ("server", "root"),
    [
        ("root /srv/a/;", "/srv/a"),
        ("root html;", "/usr/share/nginx/html"),
        ("location / { root /srv/b; }", "/srv/b"),
        ("location /x { root /srv/b; }", "/srv/all"),
        ("set $d /srv; root $d/a;", "/srv/a"),
        ("set $d /srv; root ${d}a;", "/srva"),
        ("if ($x) { set $d /a; } root $d;", None),
        ("root /srv/$host;", None),
        ("", "/srv/all"),
    ],
)
def test_the_root_is_that_of_the_server_s_front(server: str, root: str | None) -> None:
    """The location / counts before the server, the server before http; variables are filled in where they are plain."""
    host = only(f"server_name a.example; {server}", "root /srv/all;")
    assert host.root == root
    assert bool(host.doubts) is (root is None)


@pytest.mark.parametrize(
    ("server", "redirect"),
    [
        ("return 301 https://b.example$request_uri;", "b.example"),
        ("return https://b.example;", "b.example"),
        ("location / { return 302 https://b.example/; }", "b.example"),
        ("rewrite ^(.*)$ http://b.example$1 permanent;", "b.example"),
        ("rewrite ^/old http://b.example/ permanent;", None),
        ("return 301 https://$host$request_uri;", None),
        ("if ($host = a.example) { return 301 https://b.example/; }", None),
        ("location /x { return 301 https://b.example/; }", None),
        ("return 404;", None),
    ],
)
def test_only_a_redirect_of_everything_counts(server: str, redirect: str | None) -> None:
    """Parts and conditions do not make another site's name of it."""
    assert only(f"server_name a.example; {server}").redirect == redirect


@pytest.mark.parametrize(
    ("passed", "socket"),
    [
        ("unix:/var/run/php/a.sock", "/run/php/a.sock"),
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("localhost:9000", "127.0.0.1:9000"),
        ("pools", "/run/php/b.sock"),
        ("unix:/run/a.sock:", "/run/a.sock"),
    ],
)
def test_where_php_is_handed_to(passed: str, socket: str) -> None:
    """A socket, a port, or an upstream that stands for one; in nested locations and in included files."""
    upstream = "upstream pools { server unix:/run/php/b.sock max_fails=0; }"
    nested = f"location / {{ location ~ x {{ fastcgi_pass {passed}; }} }}"
    assert only(f"server_name a.example; {nested}", upstream).sockets == (socket,)
    (host,) = read(f"{upstream} server {{ include php.conf; }}", php=nested).virtual_hosts
    assert host.sockets == (socket,)


def test_includes_are_followed_from_the_main_file_s_folder() -> None:
    """Also in an included file; a missing one is told, an empty pattern is not, a loop ends."""
    nginx = read(
        "include a.conf; include gone.conf; include gone/*.conf;",
        a="server { server_name a.example; }\ninclude a.conf;",
    )
    assert [host.names for host in nginx.virtual_hosts] == [("a.example",)]
    assert [d.about for d in nginx.doubts] == ["/etc/nginx/a.conf:2", f"{MAIN}:3"]


def test_what_is_no_web_server_declares_no_site() -> None:
    """Servers of upstreams and of stream and mail blocks are none."""
    text = "upstream u { server a.example; } map $x $y { default a; }"
    assert read(text).virtual_hosts == ()
    assert (
        Nginx(Texts({MAIN: "stream { server { listen 25; } } mail { server { } }"})).virtual_hosts
        == ()
    )
