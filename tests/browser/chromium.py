"""A real Chromium, driven over the W3C WebDriver protocol by chromedriver: as much of it as the tests need.

Source: W3C WebDriver, §6 to §17; Chrome DevTools Protocol, by chromedriver's `goog/cdp/execute`.
"""

import asyncio
import base64
import os
import re
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name of an element's id on the wire
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)
START_S, ANSWER_S, WAIT_S = 30.0, 60.0, 15.0
TAB, ENTER, SPACE, ESCAPE = "\ue004", "\ue007", "\ue00d", "\ue00c"

Json = Mapping[str, object]


class BrowserFailed(Exception):
    """chromedriver's own words."""


@dataclass(frozen=True, slots=True)
class Browser:
    """One window. Elements are named by CSS selectors, and looked up anew each time: pages change by themselves."""

    session: aiohttp.ClientSession
    url: str

    async def call(self, method: str, path: str, said: Json | None = None) -> Any:
        body = (said or {}) if method == "POST" else None
        async with (
            asyncio.timeout(ANSWER_S),
            self.session.request(method, self.url + path, json=body) as answer,
        ):
            value = (await answer.json())["value"]
        if isinstance(value, dict) and "error" in value:
            raise BrowserFailed(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    async def go(self, url: str) -> None:
        await self.call("POST", "/url", {"url": url})

    async def here(self) -> str:
        return str(await self.call("GET", "/url"))

    async def run(self, script: str, *arguments: object) -> Any:
        return await self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    async def cdp(self, command: str, **parameters: object) -> Any:
        said = {"cmd": command, "params": parameters}
        return await self.call("POST", "/goog/cdp/execute", said)

    async def text(self, css: str = "body") -> str:
        """What a reader sees of it; nothing where it is not there."""
        return str(
            await self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)
        )

    async def count(self, css: str) -> int:
        return int(await self.run("return document.querySelectorAll(arguments[0]).length", css))

    async def _element(self, css: str) -> str:
        said = {"using": "css selector", "value": css}
        return str((await self.call("POST", "/element", said))[ELEMENT])

    async def click(self, css: str) -> None:
        await self.call("POST", f"/element/{await self._element(css)}/click")

    async def write(self, css: str, text: str) -> None:
        await self.call("POST", f"/element/{await self._element(css)}/value", {"text": text})

    async def press(self, *keys: str) -> None:
        """Keys as a person presses them, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        said = {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}
        await self.call("POST", "/actions", said)

    async def until(self, true: Callable[[], Awaitable[object]], what: str) -> None:
        """Look again and again. Raises AssertionError with the page's text."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not await true():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"never: {what}\n{await self.text()}") from None

    async def sees(self, text: str, css: str = "body") -> None:
        async def seen() -> bool:
            return text in await self.text(css)

        await self.until(seen, f"{text!r} in {css}")

    async def arrives(self, at: str) -> None:
        """Wait for a page whose address has `at` in it."""

        async def there() -> bool:
            return at in await self.here()

        await self.until(there, f"a page at {at}")

    async def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = await self.cdp("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))

    async def size(self, width: int, height: int) -> None:
        await self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    async def dark(self, *, is_dark: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.cdp("Emulation.setEmulatedMedia", features=[scheme])

    async def scripts(self, *, allowed: bool) -> None:
        await self.cdp("Emulation.setScriptExecutionDisabled", value=not allowed)

    async def complaints(self) -> list[str]:
        """What the console has said since it was last asked: errors of scripts, refused resources, broken policy."""
        log = await self.call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]


@asynccontextmanager
async def driven() -> AsyncGenerator[Callable[..., Any], None]:
    """chromedriver; gives what opens a browser: `async with opens(directory, language=...) as browser`."""
    driver = await asyncio.create_subprocess_exec(
        "chromedriver",
        "--port=0",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert driver.stdout
    try:
        async with asyncio.timeout(START_S):
            port = None
            while port is None:
                line = (await driver.stdout.readline()).decode()
                assert line, "chromedriver ended at once"
                port = re.search(r"on port (\d+)\.", line)
        async with aiohttp.ClientSession() as session:
            base = f"http://127.0.0.1:{port[1]}"

            @asynccontextmanager
            async def opened(
                profile: Path, *, language: str = "en"
            ) -> AsyncGenerator[Browser, None]:
                browser = await _begin(session, base, profile, language)
                try:
                    yield browser
                finally:
                    await browser.call("DELETE", "")

            yield opened
    finally:
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        await driver.wait()


async def _begin(
    session: aiohttp.ClientSession, base: str, profile: Path, language: str
) -> Browser:
    options = {
        "args": [*FLAGS, f"--user-data-dir={profile}", f"--lang={language}"],
        "prefs": {"intl.accept_languages": language},
    }
    wanted = {
        "browserName": "chrome",
        "acceptInsecureCerts": True,  # the test's own authority
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL"},
    }
    browser = Browser(session, f"{base}/session")
    found = await browser.call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
    browser = Browser(session, f"{base}/session/{found['sessionId']}")
    await browser.size(1280, 900)
    return browser
