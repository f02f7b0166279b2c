"""The dashboard with 1,050 sites in a real Chromium, its cache empty: first paint, and what is transferred for it.

A controller by TLS, as in production. No agent beats: every host then says why nothing is known of it, which makes the
longest first page that this fleet can have. Needs chromium and chromium-driver.
"""

import asyncio
import shutil
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from bench.daemons import TOKEN, controller
from bench.measure import machine, percentile, row
from deploy.demo.certificates import Authority
from tests.browser.chromium import Browser, driven

RUNS = 10
PAINT_S, TRANSFERRED_BYTES = 1.0, 300_000
PAGES = {"/ui/": "fleet", "/ui/sites": "sites", "/ui/hosts/mx1-web-01": "one host"}
FLEET = Path(__file__).parents[1] / "deploy/demo/coop.yaml"
SETTLE_S = 3.0  # the browser's own start is not the page's
TIMES = """
const paint = performance.getEntriesByName('first-contentful-paint')[0];
const [page] = performance.getEntriesByType('navigation');
const files = performance.getEntriesByType('resource');
return [paint?.startTime ?? 0, page.responseStart, [page, ...files].reduce((sum, e) => sum + e.transferSize, 0)];
"""


def main(runs: int = RUNS) -> None:
    if shutil.which("chromedriver") is None:
        print("  not measured: this needs chromium and chromium-driver")
        return
    print(f"  {machine()}; coop.yaml, {runs} times each", flush=True)
    asyncio.run(_run(runs))


async def _run(runs: int) -> None:
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        daemon = await stack.enter_async_context(controller(home, authority=Authority(home)))
        await daemon.until_ready()
        await daemon.put_fleet(await asyncio.to_thread(FLEET.read_text))
        opens = await stack.enter_async_context(driven())
        browser = await stack.enter_async_context(opens(home / "profile"))
        await browser.go(f"{daemon.url}/ui/login")
        await browser.write("#token", TOKEN)
        await browser.click("form button")
        await asyncio.sleep(SETTLE_S)
        for path, name in PAGES.items():
            found = [await _measured(browser, daemon.url + path) for _ in range(runs)]
            _tell(name, found, promised=path == "/ui/")


async def _measured(browser: Browser, url: str) -> tuple[float, float, int]:
    """(first contentful paint in s, first byte in s, bytes of page and files with their headers)."""
    await browser.go("about:blank")
    await browser.cdp("Network.clearBrowserCache")
    await browser.go(url)

    async def painted() -> bool:
        return bool((await browser.run(TIMES))[0])

    await browser.until(painted, "the first paint")
    paint_ms, answer_ms, transferred = await browser.run(TIMES)
    return paint_ms / 1000, answer_ms / 1000, transferred


def _tell(name: str, found: list[tuple[float, float, int]], *, promised: bool) -> None:
    paints, answers, sizes = zip(*found, strict=True)
    worst, size = max(paints), max(sizes)
    row(
        f"{name}: first paint",
        f"p50 {statistics.median(paints):.3f}  p99 {percentile(paints, 99):.3f} s",
        f"<= {PAINT_S:g} s" if promised else "",
        reached=worst <= PAINT_S,
    )
    row(
        f"{name}: transferred",
        f"{size / 1000:.1f} kB",
        f"<= {TRANSFERRED_BYTES // 1000} kB" if promised else "",
        reached=size <= TRANSFERRED_BYTES,
    )
    print(f"          first byte after: p50 {statistics.median(answers):.3f} s", flush=True)
