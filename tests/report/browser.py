"""A headless Chromium, driven through its DevTools protocol."""

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import time

import aiohttp

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
FLAGS += ["--disable-component-update", "--remote-debugging-port=0"]
TIMEOUT = 60


@contextlib.contextmanager
def chromium(profile):
    """Start one; yields the URL of its debugging socket."""
    command = ["chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        port, deadline = profile / "DevToolsActivePort", time.monotonic() + TIMEOUT
        while not port.exists() or len(port.read_text().splitlines()) < 2:
            assert process.poll() is None and time.monotonic() < deadline, "chromium does not start"
            time.sleep(0.05)
        number, path = port.read_text().splitlines()
        yield f"ws://127.0.0.1:{number}{path}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


class Page:
    """One tab: sends commands, and keeps what the page asks for and says."""

    def __init__(self, socket):
        self.socket, self.numbers, self.session = socket, itertools.count(1), None
        self.requests, self.messages, self.loaded = [], [], False

    async def send(self, method, **params):
        number = next(self.numbers)
        await self.socket.send_json(
            {"id": number, "method": method, "params": params, **({"sessionId": self.session} if self.session else {})}
        )
        while (message := await self.receive()).get("id") != number:
            pass
        assert "error" not in message, message
        return message["result"]

    async def receive(self):
        message = await self.socket.receive_json(timeout=TIMEOUT)
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.messages.append(params)
        self.loaded = self.loaded or method == "Page.loadEventFired"
        return message

    async def open(self, url, width, dark=False, height=900):
        """Load a page in a window of this many pixels."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.loaded = False
        await self.send("Page.navigate", url=url)
        while not self.loaded:
            await self.receive()

    async def evaluate(self, expression):
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def press(self, key, code):
        """A key of the keyboard, down and up."""
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


def visit(profile, steps):
    """Run `await steps(page)` in a new tab; returns its result."""

    async def run(url):
        async with aiohttp.ClientSession() as client, client.ws_connect(url, max_msg_size=0) as socket:
            page = Page(socket)
            target = await page.send("Target.createTarget", url="about:blank")
            page.session = (await page.send("Target.attachToTarget", targetId=target["targetId"], flatten=True))[
                "sessionId"
            ]
            for domain in ("Page", "Network", "Runtime", "Log"):
                await page.send(f"{domain}.enable")
            return await steps(page)

    with chromium(profile) as url:
        return asyncio.run(run(url))
