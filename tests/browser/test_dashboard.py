"""The dashboard in a real Chromium: read, ordered from, live, in Spanish, on a phone, by keyboard, without scripts."""

from dataclasses import replace
from pathlib import Path

import pytest

from fleet.model import HostId, SiteId
from tests.browser.chromium import ENTER, SPACE, TAB, Browser
from tests.browser.conftest import Coop, Opens
from tests.integration.controllers import ADMINS
from tests.ports import free_port
from tests.relays import Relay

pytestmark = [pytest.mark.integration, pytest.mark.long]

PAGES = (
    "/",
    "/hosts/mx1-web-01",
    "/sites",
    "/sites?q=huerto",
    "/sites/huerto",
    "/incidents",
    "/holds",
    "/holds/move-mx1-web-01",
    "/holds/move-mx1-web-01/approve",
    "/holds/move-mx1-web-01/refuse",
    "/failover",
    "/failover/arming?scope=all",
    "/failover/pause",
    "/hosts/mx1-web-01/drain",
    "/hosts/mx1-web-01/activate",
    "/sites/huerto/move",
    "/sites/huerto/quarantine",
    "/sites/huerto/release",
    "/log",
)


async def held(coop: Coop) -> None:
    """mx1-web-01 dies; its one site is gated, and held."""
    coop.crowd.die("mx1-web-01")
    await coop.served.until(lambda: "move-mx1-web-01" in coop.served.controller.mirror.holds)


def where(coop: Coop, site: str) -> str:
    return coop.served.controller.mirror.places[SiteId(site)].host


async def test_who_has_no_token_sees_the_door_only(coop: Coop, browser: Browser) -> None:
    """Every page leads to the door; a wrong token is told so, a right one leads to the page that was wanted."""
    await browser.go(f"{coop.url}/sites/huerto")
    assert "/ui/login" in await browser.here()
    await browser.write("#token", "wrong")
    await browser.click("form button")
    await browser.sees("does not know that token")
    [said] = await browser.complaints()
    assert "401" in said  # the browser's own remark on the answer's status
    await browser.write("#token", ADMINS["ana"])
    await browser.click("form button")
    await browser.arrives("/ui/sites/huerto")
    await browser.click(".foot form button")
    await browser.arrives("/ui/login")
    await browser.go(f"{coop.url}/")
    await browser.arrives("/ui/login")


async def test_the_first_screen_says_whether_all_is_well(coop: Coop, browser: Browser) -> None:
    """Well and observing; then what is wrong, what relevo does about it and what it wants, without a reload."""
    await coop.enter(browser)
    await browser.sees("All is well; relevo only observes", "h1")
    await browser.run("window.untouched = true")
    await coop.arm()
    await held(coop)
    await browser.sees("1 thing needs you", "h1")
    told = await browser.text(".points")
    assert "mx1-web-01 (clara): dead." in told
    assert "1 site is held. The site is gated" in told
    assert "You: Decide: move them, or leave them where they are." in told
    assert await browser.run("return window.untouched"), "the page was loaded anew"
    assert await browser.run("return document.title") == "(1) Fleet · relevo"
    coop.crowd.rise("mx1-web-01")
    await browser.sees("All is well", "h1")


async def test_a_hold_is_approved(coop: Coop, browser: Browser) -> None:
    """Without the word that the old host is stopped it is refused; with it, and a reason, the site moves."""
    await coop.arm()
    await held(coop)
    await coop.enter(browser, "/holds")
    await browser.click("#holds a.main")
    assert "What will happen" in await browser.text("main")
    await browser.write("#reason", "its disk is gone")
    await browser.click("form.order button")
    await browser.sees("The site is gated", ".error")
    assert "409" in "".join(await browser.complaints())
    assert await browser.run("return document.querySelector('#reason').value") == "its disk is gone"
    await browser.click("#f-stopped")
    await browser.click("form.order button")
    await browser.sees("1 site moves.", ".told")
    assert where(coop, "huerto") == "us1-web-01"
    await browser.sees("Nothing is held.")
    await browser.go(f"{coop.url}/log")
    told = await browser.text("#log")
    assert "ana" in told
    assert "its disk is gone" in told


async def test_a_hold_is_refused_and_taken_back(coop: Coop, browser: Browser) -> None:
    """A refusal is asked about, kept with its end and owner, and no longer asked for; it can be taken back."""
    await held(coop)
    await coop.enter(browser, "/holds/move-mx1-web-01")
    await browser.click("#actions a:not(.main)")
    await browser.write("#reason", "it comes back in a minute")
    await browser.click("form.order button")
    await browser.sees("Refused: nothing moves from mx1-web-01 by itself.", ".told")
    await browser.sees("by ana, for")
    refusal = coop.served.controller.mirror.refusals[HostId("mx1-web-01")]
    assert refusal.reason == "it comes back in a minute"
    assert 3600 < refusal.until - refusal.since <= 7200
    assert await browser.count("nav .count") == 1, "only the incident is counted"
    await browser.go(f"{coop.url}/hosts/mx1-web-01/reconsider")
    await browser.write("#reason", "it did not")
    await browser.click("form.order button")
    await browser.sees("The refusal is taken back.")
    assert not coop.served.controller.mirror.refusals


async def test_arming_pausing_draining_and_moving(coop: Coop, browser: Browser) -> None:
    """Each order asks why, says what will happen, and what it did can be seen on the page it leads back to."""
    await coop.enter(browser, "/failover/arming?scope=location&id=mx1")
    assert "relevo moves 1 site by itself" in await browser.text(".happens")
    await browser.write("#reason", "a week of right verdicts")
    await browser.click("form.order button")
    await browser.sees("Ciudad de México: Armed.", ".told")
    await browser.go(f"{coop.url}/failover/pause")
    await browser.click("form.order button")  # without a reason the browser itself does not send it
    assert (await browser.here()).endswith("/failover/pause")
    await browser.write("#reason", "a new switch")
    await browser.click("form.order button")
    await browser.sees("Paused by ana, for", "#switches")
    await browser.go(f"{coop.url}/failover/resume")
    await browser.write("#reason", "done")
    await browser.click("form.order button")
    await browser.sees("Failover goes on", "#switches")
    await browser.go(f"{coop.url}/hosts/mx1-web-09/drain")
    await browser.write("#reason", "a new disk")
    await browser.click("form.order button")
    await browser.sees("by ana, for", "#host")
    await coop.served.until(lambda: where(coop, "blog") != "mx1-web-09")
    assert where(coop, "huerto") == "mx1-web-01"
    await browser.go(f"{coop.url}/sites/blog/move")
    await browser.run("document.querySelector('#f-to').value = 'us1-web-01'")
    await browser.write("#reason", "nearer to its readers")
    await browser.click("form.order button")
    await browser.sees("blog moves to us1-web-01.", ".told")
    await browser.sees("us1-web-01", "#site dl")


async def test_spanish_by_preference_and_by_choice(
    coop: Coop, opens: Opens, tmp_path: Path
) -> None:
    """A Spanish browser is spoken to in Spanish; who chooses English keeps it."""
    async with opens(tmp_path / "es", language="es-MX") as browser:
        await browser.go(f"{coop.url}/login")
        assert await browser.text("h1") == "Entrar"
        await coop.enter(browser)
        await browser.sees("Todo va bien; relevo solo observa", "h1")
        assert await browser.run("return document.documentElement.lang") == "es"
        assert "en marcha" in await browser.text("#banner")
        await browser.click(".foot a[lang=en]")
        await browser.sees("All is well; relevo only observes", "h1")
        await browser.go(f"{coop.url}/holds")
        assert await browser.text("h1") == "Holds"
        assert await browser.complaints() == []


async def test_reading_needs_no_scripts(coop: Coop, browser: Browser) -> None:
    """Without JavaScript every page is whole, and orders work."""
    await held(coop)
    await browser.scripts(allowed=False)
    await coop.enter(browser)
    await browser.sees("mx1-web-01 (clara): dead.")
    for path in PAGES:
        await browser.go(coop.url + path)
        assert await browser.count("h1") == 1, path
    await browser.go(f"{coop.url}/holds/move-mx1-web-01/approve")
    await browser.write("#reason", "no scripts here")
    await browser.click("#f-stopped")
    await browser.click("form.order button")
    await browser.sees("1 site moves.", ".told")


async def test_a_phone_shows_every_page_without_scrolling_sideways(
    coop: Coop, browser: Browser
) -> None:
    """At 360 pixels nothing is wider than the screen, and what is pressed is large enough for a thumb."""
    await held(coop)
    await browser.size(360, 740)
    await coop.enter(browser)
    for path in PAGES:
        await browser.go(coop.url + path)
        wide = await browser.run(
            "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.hidden, .skip') "
            "&& e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120))"
        )
        assert wide == [], path
        assert await browser.run("return document.documentElement.scrollWidth") <= 360, path
        small = await browser.run(
            "return [...document.querySelectorAll('main button, a.button, nav a, select')]"
            ".filter(e => e.getBoundingClientRect().height < 32).map(e => e.outerHTML.slice(0, 120))"
        )
        assert small == [], path


async def test_everything_can_be_done_by_keyboard(coop: Coop, browser: Browser) -> None:
    """Log in, skip to the content, follow what is wanted, approve: no mouse, and the focus can always be seen."""
    await held(coop)
    await browser.go(f"{coop.url}/login")
    await browser.press(*ADMINS["ana"], ENTER)  # the field has the focus
    await browser.sees("needs you", "h1")
    await browser.press(TAB)
    assert await browser.run("return document.activeElement.className") == "skip"
    await browser.press(ENTER, TAB)
    assert await browser.run("return document.activeElement.closest('.points') !== null")
    assert (
        await browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    )
    await browser.press(ENTER)
    await browser.sees("Held: mx1-web-01", "h1")
    await walk(browser, "a.main")
    await browser.press(ENTER)
    await browser.sees("Approve", "h1")
    await walk(browser, "#f-stopped")
    await browser.press(SPACE)
    await walk(browser, "#reason")
    await browser.press(*"by keyboard")
    await walk(browser, "form.order button")
    await browser.press(ENTER)
    await browser.sees("1 site moves.", ".told")


async def walk(browser: Browser, css: str) -> None:
    """Tab on until the focus is on `css`."""
    for _ in range(60):
        if await browser.run("return document.activeElement.matches(arguments[0])", css):
            return
        await browser.press(TAB)
    raise AssertionError(f"{css} can't be reached by Tab")


async def test_a_live_page_keeps_focus_scroll_and_what_was_opened(
    coop: Coop, browser: Browser
) -> None:
    """While the page changes under a reader, they stay where they are."""
    await browser.size(800, 400)
    await coop.enter(browser)
    await browser.run(
        "const a = document.querySelector('#t-us1-web-01 a'); a.focus(); a.scrollIntoView(); window.tile = a"
    )
    before = await browser.run("return scrollY")
    assert before > 0
    await held(coop)

    async def told() -> bool:
        return "dead" in await browser.text("#places")

    await browser.until(told, "the dead host in its place")
    assert await browser.run(
        "return document.activeElement === window.tile && window.tile.isConnected"
    )
    top = await browser.run("return window.tile.getBoundingClientRect().top")
    assert -50 < top < 400, "the focused host is still on the screen"


async def test_a_lost_connection_is_said(coop: Coop, browser: Browser) -> None:
    """A page that can't hear the controller says since when; once it can again, it shows what is."""
    relay = Relay(free_port(), int(coop.served.url.rpartition(":")[2]))
    await relay.open()
    through = replace(coop, served=replace(coop.served, url=f"https://127.0.0.1:{relay.port}"))
    await through.enter(browser)
    await browser.sees("All is well", "h1")
    relay.refuse(b"")
    coop.crowd.die("mx1-web-09")
    await browser.sees("Connection lost. This is what was known at", "#blind")
    assert "dead" not in await browser.text("#banner")
    relay.mend()
    await browser.sees("mx1-web-09 (rosa): dead", "#banner")
    assert await browser.run("return document.getElementById('blind').hidden")
    await browser.go("about:blank")
    await relay.close()
    assert "live" in "".join(await browser.complaints())  # the browser remarks that it was cut off


CHECKS = """
const problems = [];
const say = (what, e) => problems.push(what + ': ' + e.outerHTML.slice(0, 140));
const visible = (e) => e.checkVisibility() && e.getBoundingClientRect().width > 1;
for (const e of document.querySelectorAll('input:not([type=hidden]), select, textarea'))
  if (!(e.labels && e.labels.length) && !e.getAttribute('aria-label')) say('no label', e);
for (const e of document.querySelectorAll('a, button'))
  if (!e.textContent.trim() && !e.getAttribute('aria-label')) say('no name', e);
for (const e of document.querySelectorAll('img')) if (!e.hasAttribute('alt')) say('no alt', e);
for (const e of document.querySelectorAll('th')) if (!e.scope) say('no scope', e);
for (const e of document.querySelectorAll('meter')) if (!e.getAttribute('aria-label')) say('no name', e);
for (const e of document.querySelectorAll('[aria-labelledby], [aria-describedby]'))
  for (const id of (e.getAttribute('aria-labelledby') ?? e.getAttribute('aria-describedby')).split(' '))
    if (!document.getElementById(id)) say('names nothing', e);
const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
for (const id of ids.filter((id, n) => ids.indexOf(id) !== n)) problems.push('id twice: ' + id);
if (document.querySelectorAll('h1').length !== 1) problems.push('not one h1');
if (document.querySelectorAll('main').length !== 1) problems.push('not one main');
if (!document.documentElement.lang) problems.push('no lang');
let level = 1;
for (const e of document.querySelectorAll('h1, h2, h3')) {
  if (+e.tagName[1] > level + 1) say('a heading is skipped', e);
  level = +e.tagName[1];
}
const parse = (colour) => { const n = colour.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, n) => sum + c * [.2126, .7152, .0722][n], 0);
const ground = (e) => { for (; e; e = e.parentElement) {
  const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; } return [255, 255, 255, 1]; };
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !visible(e) || e.closest('.hidden, .skip, option')) continue;
  const style = getComputedStyle(e);
  const [a, b] = [luminance(parse(style.color)), luminance(ground(e))].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const contrast = (a + .05) / (b + .05);
  if (contrast < (large ? 3 : 4.5)) say('contrast ' + contrast.toFixed(2), e);
}
return problems;
"""


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
async def test_pages_are_accessible(coop: Coop, browser: Browser, *, is_dark: bool) -> None:
    """Labels, names, headings, landmarks, table headers, and contrast of 4.5 (WCAG 2.2 AA, 1.4.3), in both colours."""
    await held(coop)
    await browser.dark(is_dark=is_dark)
    await browser.go(f"{coop.url}/login")
    assert await browser.run(CHECKS) == []
    await coop.enter(browser)
    incident = next(iter(coop.served.controller.mirror.incidents))
    for path in (*PAGES, f"/incidents/{incident}"):
        await browser.go(coop.url + path)
        assert await browser.run(CHECKS) == [], path


async def test_nothing_comes_from_elsewhere(coop: Coop, browser: Browser) -> None:
    """Every file that a page needs is the controller's own."""
    await coop.enter(browser)
    names = await browser.run(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    files = {name.partition("?")[0] for name in names} - {f"{coop.url}/live"}
    assert files == {f"{coop.url}/static/{name}" for name in ("style.css", "live.js", "icon.svg")}
