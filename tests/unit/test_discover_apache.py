"""Apache's configuration, read as Apache reads it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.discover.apache import MAIN, Apache
from agent.discover.apache_syntax import environment, parse, words
from tests.unit.hosttree import ENVVARS, Texts

# Text that is nearly configuration finds more than text that is none.
PIECES = st.sampled_from(
    [
        "<VirtualHost *:80>", "</VirtualHost>", "<IfModule", "<IfModule !x>", "</IfModule>", "<Macro M $a $b>",
        "</Macro>", "Use M", "Use M 'x y", "Include /a.conf", "Include *.conf", "Define X ${X}", "ServerName",
        "ServerName ${X}", "ServerAlias a \\", "\\", "DocumentRoot \"", "#", "<", ">", "</", "\"", "'", "\x00", "é",
        "SetHandler proxy:unix:", "RewriteRule", "RewriteCond", "Redirect /", "ServerRoot", "LoadModule a", "Macro",
    ]
)  # fmt: skip
NEARLY = st.lists(PIECES | st.text(max_size=8), max_size=30).flatmap(
    lambda parts: st.sampled_from(["\n", " ", "\n\n"]).map(lambda between: between.join(parts))
)


def read(text: str, **more: str) -> Apache:
    return Apache(
        Texts({MAIN: text, **{f"/etc/apache2/{name}.conf": t for name, t in more.items()}})
    )


@settings(deadline=None)
@given(NEARLY | st.text(), NEARLY)
def test_no_text_breaks_the_reader(main: str, other: str) -> None:
    """Whatever two files say that may include each other, reading ends, with an answer."""
    apache = Apache(Texts({MAIN: main, "/a.conf": other, "/etc/apache2/b.conf": main}))
    assert all(host.server == "apache" for host in apache.virtual_hosts)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12), max_size=6))
def test_words_in_quotes_come_back_as_they_were(said: list[str]) -> None:
    """Spaces and quotes inside quotes belong to the word."""
    written = " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in said)
    assert words(written) == tuple(said)


def test_an_unclosed_section_is_told_and_still_read() -> None:
    """A forgotten </VirtualHost> costs no name, and its line is told."""
    apache = read("\n<VirtualHost *:80>\nServerName a.example\n")
    assert [host.names for host in apache.virtual_hosts] == [("a.example",)]
    assert [(d.about, d.what) for d in apache.doubts] == [
        (f"{MAIN}:2", "<virtualhost> is never closed")
    ]


def test_a_folded_line_is_one_and_keeps_its_number() -> None:
    """A backslash at a line's end continues it; what follows is counted on."""
    parsed = parse("ServerAlias a \\\n  b\nServerName c\n")
    assert [(d.name, words(d.text), d.line) for d in parsed.directives] == [
        ("serveralias", ("a", "b"), 1),
        ("servername", ("c",), 3),
    ]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("IfModule mod_ssl.c", True),
        ("IfModule ssl_module", True),
        ("IfModule !ssl_module", False),
        ("IfModule mpm_itk.c", True),
        ("IfModule mod_php.c", True),
        ("IfModule mod_php8.c", False),
        ("IfModule mod_nss.c", False),
        ("IfModule mod_so.c", True),
        ("IfDefine LIVE", True),
        ("IfDefine !LIVE", False),
        ("IfDefine TESTING", False),
        ("IfFile /etc/apache2/there.conf", True),
        ("IfFile there.conf", True),
        ("IfFile absent.conf", False),
    ],
)
def test_what_a_condition_hides_is_not_there(condition: str, holds: bool) -> None:
    """Loaded modules, defined words and existing files are known; what depends on others is not read."""
    kind = condition.split(maxsplit=1)[0]
    text = (
        "LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\n"
        "LoadModule mpm_itk_module /usr/lib/apache2/modules/mpm_itk.so\n"
        "LoadModule php_module /usr/lib/apache2/modules/libphp8.2.so\n"
        f"Define LIVE\n<{condition}>\n<VirtualHost *>\nServerName a.example\n</VirtualHost>\n</{kind}>\n"
    )
    assert bool(read(text, there="").virtual_hosts) is holds


def test_what_can_not_be_told_is_taken_as_true_and_said() -> None:
    """A version's condition, or a section that is unknown, hides no site."""
    apache = read(
        "<IfVersion >= 2.4>\n<VirtualHost *>\nServerName a.example\n</VirtualHost>\n</IfVersion>\n"
        "<Strange>\n<VirtualHost *>\nServerName b.example\n</VirtualHost>\n</Strange>\n"
    )
    assert [host.names for host in apache.virtual_hosts] == [("a.example",), ("b.example",)]
    assert [d.about for d in apache.doubts] == [f"{MAIN}:1", f"{MAIN}:6"]


def test_a_file_that_includes_itself_is_read_once() -> None:
    """The loop is told, and what stands beside it is read."""
    apache = read("Include loop.conf\n", loop="Include loop.conf\nServerName a.example\n")
    assert [host.names for host in apache.virtual_hosts] == [("a.example",)]
    assert [d.about for d in apache.doubts] == ["/etc/apache2/loop.conf:1"]


def test_a_missing_include_is_told_unless_it_is_optional() -> None:
    """`Include` needs its file, `IncludeOptional` does not."""
    assert len(read("Include gone.conf\n").doubts) == 1
    assert read("IncludeOptional gone.conf\nIncludeOptional gone/*.conf\n").doubts == []


def test_macros_are_filled_in_the_longest_name_first() -> None:
    """$name does not eat the beginning of $names; an unknown macro is told."""
    apache = read(
        "<Macro V $name $names>\n<VirtualHost *>\nServerName $names\nServerAlias $name\n</VirtualHost>\n</Macro>\n"
        "Use V one.example all.example\nUse W x\n"
    )
    assert [host.names for host in apache.virtual_hosts] == [("all.example", "one.example")]
    assert apache.virtual_hosts[0].place == f"{MAIN}:7"
    assert [d.about for d in apache.doubts] == [f"{MAIN}:8"]


@pytest.mark.parametrize(
    ("line", "redirect"),
    [
        ("Redirect permanent / https://b.example/", "b.example"),
        ("Redirect 301 / https://b.example", "b.example"),
        ("Redirect / http://b.example:8080/x", "b.example"),
        ("RedirectMatch ^/(.*)$ https://b.example/$1", "b.example"),
        ("RewriteRule ^ https://b.example%{REQUEST_URI} [R=301,L]", "b.example"),
        ("RewriteRule ^/?(.*) https://b.example/$1 [R,L]", "b.example"),
        ("RewriteRule ^$ https://b.example/ [R,L]", None),
        ("RedirectMatch ^/$ https://b.example/", None),
        ("RewriteRule ^/?(.*) https://%{SERVER_NAME}/$1 [R,L]", None),
        ("RewriteCond %{HTTPS} off\nRewriteRule ^ https://b.example/ [R]", None),
        ("Redirect /old https://b.example/", None),
        ("<Location /x>\nRedirect / https://b.example/\n</Location>", None),
        ("RewriteRule", None),
    ],
)
def test_only_a_redirect_of_everything_counts(line: str, redirect: str | None) -> None:
    """Parts, conditions and hosts that are filled in later do not make another site's name of it."""
    apache = read(f"<VirtualHost *>\nServerName a.example\n{line}\n</VirtualHost>\n")
    assert apache.virtual_hosts[0].redirect == redirect


@pytest.mark.parametrize(
    ("lines", "socket"),
    [
        ('SetHandler "proxy:unix:/run/php/a.sock|fcgi://localhost/"', "/run/php/a.sock"),
        ('SetHandler "proxy:unix:/var/run/php/a.sock|fcgi://a:9000"', "/run/php/a.sock"),
        ('SetHandler "proxy:fcgi://localhost:9001"', "127.0.0.1:9001"),
        ("ProxyPassMatch ^/(.*)$ fcgi://127.0.0.1:9000/srv/$1", "127.0.0.1:9000"),
        ('ProxyPassMatch "^/(.*)$" "unix:/run/a.sock|fcgi://localhost/srv"', "/run/a.sock"),
        ("FastCgiExternalServer /usr/lib/x -socket /run/a.sock -idle-timeout 9", "/run/a.sock"),
        ('<Proxy "unix:/run/a.sock|fcgi://a">\n</Proxy>', "/run/a.sock"),
        ('<If "true">\nSetHandler "proxy:unix:/run/a.sock|fcgi://x"\n</If>', "/run/a.sock"),
    ],
)
def test_where_php_is_handed_to(lines: str, socket: str) -> None:
    """Every way that Debian's servers use to name a pool's socket is understood."""
    apache = read(
        f"<VirtualHost *>\n<FilesMatch x>\n{lines}\n</FilesMatch>\nServerName a.example\n</VirtualHost>\n"
    )
    assert apache.virtual_hosts[0].sockets == (socket,)


def test_users_are_those_of_the_virtual_host() -> None:
    """mpm-itk's and suexec's are the site's; an expression is told; the server's own are nobody's."""
    apache = read(
        "User www-data\nAssignUserID all all\n"
        "<VirtualHost *>\nServerName a.example\nAssignUserID ana ana\n</VirtualHost>\n"
        '<VirtualHost *>\nServerName b.example\nSuexecUserGroup "eva" "eva"\n</VirtualHost>\n'
        "<VirtualHost *>\nServerName c.example\nAssignUserIDExpr %{x}\n</VirtualHost>\n"
    )
    assert [host.users for host in apache.virtual_hosts] == [("ana",), ("eva",), ()]
    assert apache.virtual_hosts[2].doubts


def test_the_main_server_s_root_is_inherited() -> None:
    """A virtual host without a DocumentRoot serves the main server's; one relative to ServerRoot is made whole."""
    apache = read(
        "DocumentRoot htdocs\n<VirtualHost *>\nServerName a.example\n</VirtualHost>\n"
        "<VirtualHost *>\nServerName b.example\nDocumentRoot ${NOWHERE}/b\n</VirtualHost>\n"
    )
    assert apache.virtual_hosts[0].root == "/etc/apache2/htdocs"
    assert apache.virtual_hosts[1].doubts


def test_envvars_are_understood_without_running_them() -> None:
    """Plain assignments count, commands do not."""
    found = environment(ENVVARS + 'export A="x y"\nexport B=`id -u`\nexport C=$(id)\n')
    assert found["APACHE_RUN_USER"] == "www-data"
    assert found["APACHE_LOG_DIR"] == "/var/log/apache2"
    assert (found["SITES"], found["A"]) == ("/srv/sites", "x y")
    assert "B" not in found
    assert "C" not in found
