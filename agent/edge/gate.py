"""The gate before limited sites, as HAProxy's rules: counters in stick tables against the numbers of a site's entry.

A page is what a program makes. It passes if its client, its site's rate and its site's requests in flight allow it;
for the last two it waits its turn, and is refused when too many wait or its time is over. A file takes no turn: it is
refused only where as many files are under way as pages could be and wait. Clients are known by a hash, in HAProxy's
memory only, for two minutes (rule R16).
Source: HAProxy Configuration Manual 2.6 and 3.0, "stick-table", "http-request track-sc0"; HAProxy Lua API, "Txn class".
"""

import hashlib
from pathlib import Path

from agent.edge.limits import BETWEEN

WAIT = "wait.lua"
# Of an entry, from its third field on. `present`, in flight and waiting, is summed by the agent: HAProxy 2.6 subtracts
# wrongly from what is negative, so that no rule may take away two numbers in a row.
NUMBERS = ("in_flight", "present", "wait_ms", "in_1s", "in_10s", "client_in_1min")
REASONS = ("closed", "client", "crowd", "late")  # in the order of `relevo:refused`'s counters

# 20,480 sites are all that an edge may have. An entry is about 200 bytes: 4 MB, if all are limited and asked for.
# 102,400 clients at a time take 21 MB (bench edgelimits); beyond, who came longest ago is forgotten first.
SITES, CLIENTS = "20k", "100k"

TABLES = f"""\
backend relevo:sites
    stick-table type string len 63 size {SITES} expire 1m store conn_cur,gpc0,gpc0_rate(1s),gpc1,gpc1_rate(10s)

backend relevo:files
    stick-table type string len 63 size {SITES} expire 1m store conn_cur

backend relevo:serving
    stick-table type string len 63 size {SITES} expire 1m store conn_cur

backend relevo:clients
    stick-table type binary len 8 size {CLIENTS} expire 2m store gpc0,gpc0_rate(1m)

backend relevo:refused
    stick-table type string len 63 size {SITES} expire 1h store gpc({len(REASONS)})
"""

# A page needs its style, scripts and images at once: counted as requests they would be most of them.
FILES = (
    ".avif .bmp .css .eot .flac .gif .ico .jpeg .jpg .js .m4a .m4v .map .mjs .mov .mp3 .mp4 .oga .ogg .ogv .otf .pdf"
    " .png .svg .ttf .wasm .wav .webm .webmanifest .webp .woff .woff2 .zip"
)
BUSY = (
    "This site has more visitors than it can serve at once. Please try again in a moment.\\n"
    "Este sitio tiene ahora más visitas de las que puede atender. Inténtelo de nuevo en un momento.\\n"
)
CLOSED = (
    "This site is closed for a while. Its administrators know about it.\\n"
    "Este sitio está cerrado por un tiempo. Sus administradores lo saben.\\n"
)
CLIENT = (
    "Too many requests from your network. Please try again in a minute.\\n"
    "Demasiadas peticiones desde su red. Inténtelo de nuevo en un minuto.\\n"
)
BUSY_AFTER_S, CLOSED_AFTER_S, CLIENT_AFTER_S = 10, 600, 60

# HAProxy queues only before a server, and a host's server is of all its sites: a site's own queue is a request that
# asks again and again. The more wait, the less often each asks: one site's queue costs about 250 looks a second.
WAITING = """\
-- Written by relevo's agent. A page of a site that is full waits here for its turn. It comes refused, and stays so if
-- nothing here lets it pass: also where its visitor goes, for HAProxy then ends the waiting and goes on.
local function is_free(txn, site)
    return txn.c:table_conn_cur(site, "relevo:serving") < txn:get_var("txn.in_flight")
        and txn.f:sc_gpc0_rate(0) < txn:get_var("txn.in_1s")
        and txn.f:sc_gpc1_rate(0) < txn:get_var("txn.in_10s")
end

local function wait(txn)
    local site, limit_ms = txn:get_var("txn.site"), txn:get_var("txn.wait_ms")
    local began = core.now()
    repeat
        local waiting = txn.f:sc_conn_cur(0) - txn.c:table_conn_cur(site, "relevo:serving")
        core.msleep(math.min(10 + 4 * math.max(waiting, 0), 250))
        if is_free(txn, site) then
            txn:unset_var("txn.refused")
            return
        end
        local now = core.now()
        local waited_ms = (now.sec - began.sec) * 1000 + (now.usec - began.usec) / 1000
    until waited_ms >= limit_ms
end

core.register_action("relevo_wait", { "http-req" }, wait, 0)
"""


def load(folder: Path) -> str:
    """The line of `global` that loads WAITING; it changes with the script, so that a reload brings it."""
    digest = hashlib.sha256(WAITING.encode()).hexdigest()[:16]
    return f"    lua-load-per-thread {folder / WAIT} # {digest}\n"


def rules(text: str) -> str:
    """The rules of the frontend, after `txn.entry` was found. `text`: how a page of text is returned."""
    numbers = "".join(
        f"    http-request set-var(txn.{name}) var(txn.entry),field({at},{BETWEEN}),add(0) if limited !refused\n"
        for at, name in enumerate(NUMBERS, 3)
    )
    counts = "".join(
        f"    http-request sc-inc-gpc({at},2) if {{ var(txn.refused) -m str {reason} }}\n"
        for at, reason in enumerate(REASONS)
    )
    busy = f'{text} hdr retry-after {BUSY_AFTER_S} string "{BUSY}"'
    closed = f'{text} hdr retry-after {CLOSED_AFTER_S} string "{CLOSED}"'
    client = f'{text} hdr retry-after {CLIENT_AFTER_S} string "{CLIENT}"'
    return f"""\
    acl proved var(txn.proved) -m bool
    acl limited var(txn.site) -m found
    acl refused var(txn.refused) -m found
    acl page var(txn.page) -m bool
    acl full var(txn.full) -m bool
    http-request set-var(txn.site) var(txn.entry),field(2,{BETWEEN}) if {{ var(txn.entry) -m sub {BETWEEN} }} !proved
    http-request set-var(txn.refused) str(closed) if limited {{ var(txn.entry),field(3,{BETWEEN}) -m str closed }}
{numbers}\
    http-request set-var(txn.page) bool(true) if limited !refused
    http-request unset-var(txn.page) if page {{ method GET HEAD }} {{ path_end -i {FILES} }} !{{ path_sub -i .php/ }}
    http-request set-var(txn.client) src,ipmask(32,64) if page
    http-request track-sc1 var(txn.site),concat({BETWEEN},txn.client),xxh64 table relevo:clients if page
    http-request set-var(txn.refused) str(client) if page {{ sc_gpc0_rate(1),sub(txn.client_in_1min) ge 0 }}
    http-request sc-inc-gpc0(1) if page !refused
    http-request track-sc0 var(txn.site) table relevo:sites if page !refused
    http-request track-sc0 var(txn.site) table relevo:files if limited !page !refused
    http-request set-var(txn.refused) str(crowd) if limited !refused {{ sc_conn_cur(0),sub(txn.present) gt 0 }}
    http-request set-var(txn.serving) var(txn.site),table_conn_cur(relevo:serving) if page !refused
    http-request set-var(txn.full) bool(true) if page !refused {{ var(txn.serving),sub(txn.in_flight) ge 0 }}
    http-request set-var(txn.full) bool(true) if page !refused {{ sc_conn_cur(0),sub(txn.serving) gt 1 }}
    http-request set-var(txn.full) bool(true) if page !refused {{ sc_gpc0_rate(0),sub(txn.in_1s) ge 0 }}
    http-request set-var(txn.full) bool(true) if page !refused {{ sc_gpc1_rate(0),sub(txn.in_10s) ge 0 }}
    http-request set-var(txn.refused) str(late) if full
    http-request lua.relevo_wait if full
    http-request track-sc2 var(txn.site) table relevo:refused if refused
{counts}\
    http-request return status 503 {closed} if {{ var(txn.refused) -m str closed }}
    http-request return status 429 {client} if {{ var(txn.refused) -m str client }}
    http-request return status 503 {busy} if refused
    http-request sc-inc-gpc0(0) if page
    http-request sc-inc-gpc1(0) if page
    http-request track-sc2 var(txn.site) table relevo:serving if page
"""
