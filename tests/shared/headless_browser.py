"""A real browser without a window, driven over its DevTools protocol."""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

BROWSER = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
"""None: there is none on this machine."""

_SECONDS = 30


@dataclass
class Tab:
    """One page."""

    socket: aiohttp.ClientWebSocketResponse
    console: list[str] = field(default_factory=list)
    """What the page complained of."""
    _last: int = 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._last += 1
        await self.socket.send_json({"id": self._last, "method": method, "params": parameters})
        while True:
            message = await self.socket.receive_json(timeout=_SECONDS)
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self._note(message["params"])
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def _note(self, complaint: dict[str, Any]) -> None:
        """A status of 4xx is an answer, and no fault of the page's."""
        if complaint.get("entry", {}).get("source") != "network":
            self.console.append(json.dumps(complaint))

    async def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        for domain in ("Page", "Runtime", "Log", "DOM"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def evaluate(self, script: str) -> Any:
        """The value of an expression."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait for an expression to be true."""
        async with asyncio.timeout(_SECONDS):
            while not await self.evaluate(condition):
                await asyncio.sleep(0.05)

    async def choose_files(self, selector: str, files: Sequence[Path]) -> None:
        """As if a person had chosen them in the file dialog."""
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        node = await self.call("DOM.querySelector", nodeId=root, selector=selector)
        names = [str(file) for file in files]
        await self.call("DOM.setFileInputFiles", nodeId=node["nodeId"], files=names)

    async def look(self, *, width: int, height: int, scheme: str = "light") -> None:
        """The size of the window, and whether it is a dark one."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def screenshot(self, file: Path) -> None:
        """What a person would see, as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Tab]:
    """A tab in a browser with a profile of its own; nothing of it is left."""
    assert BROWSER
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        command = [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", "--mute-audio"),
            *("--disable-background-networking", "--disable-dev-shm-usage", "about:blank"),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                async with session.get("/json/list") as response:
                    pages = [page for page in await response.json() if page["type"] == "page"]
                url = pages[0]["webSocketDebuggerUrl"]
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    yield Tab(socket)
        finally:
            process.terminate()
            process.wait(_SECONDS)


async def _port(file: Path) -> int:
    async with asyncio.timeout(_SECONDS):
        while not (file.exists() and file.read_text().strip()):
            await asyncio.sleep(0.05)
    return int(file.read_text().split()[0])
