"""Chromium without a window, driven through its DevTools protocol over a pair of pipes. Standard library only."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
STOP_TIMEOUT_S = 30
# How long a page may take to be what is waited for.
PATIENCE_S = 60
POLL_S = 0.05
# It reads at descriptor 3 and writes at 4. Two of higher numbers in between: the first could be in the way of the second.
AT_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD_CLOEXEC, 10) for end in sys.argv[1:3]]
for end in sys.argv[1:3]:
    os.close(int(end))
for number, end in enumerate(ends, 3):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


class BrowserError(Exception):
    """The browser is not there, does not answer, or a page is not what was waited for."""


class Chromium:
    """A browser with a profile of its own, from entering the context to leaving it. All of it is over by `deadline`."""

    def __init__(self, deadline):
        self.deadline = deadline
        self.last_id = 0
        self.events = []
        self.received = b""

    def __enter__(self):
        binary = next(filter(None, map(shutil.which, NAMES)), None)
        if binary is None:
            raise BrowserError("there is no Chromium: apt-get install chromium")
        self.profile = tempfile.TemporaryDirectory(prefix="crosspoint-browser-", ignore_cleanup_errors=True)
        its_input, self.to_browser = os.pipe()
        self.from_browser, its_output = os.pipe()
        options = [
            "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-extensions", "--password-store=basic", "--window-size=1200,1000",
        ]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # it refuses to start as root otherwise
        self.log = open(os.path.join(self.profile.name, "browser.log"), "w+b")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", AT_3_AND_4, str(its_input), str(its_output), binary, *options, "about:blank"],
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, pass_fds=(its_input, its_output),
                start_new_session=True)
        finally:
            os.close(its_input)
            os.close(its_output)
        return self

    def __exit__(self, *_):
        os.close(self.to_browser)
        os.close(self.from_browser)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        # Its helpers are of the session that was begun for it.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()
        self.profile.cleanup()

    def send(self, method, parameters=None, session=None):
        """Calls a method of the protocol, and gives its result."""
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": parameters or {}}
        if session:
            message["sessionId"] = session
        try:
            os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        except BrokenPipeError:
            raise BrowserError(f"the browser has ended:\n{self.said()}") from None
        while True:
            answer = self.receive(method)
            if answer.get("id") == self.last_id:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def receive(self, awaited):
        while b"\0" not in self.received:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.from_browser], [], [], left)[0]:
                raise BrowserError(f"the time is over, and {awaited} is not answered:\n{self.said()}")
            chunk = os.read(self.from_browser, 1 << 16)
            if not chunk:
                raise BrowserError(f"the browser has ended:\n{self.said()}")
            self.received += chunk
        message, _, self.received = self.received.partition(b"\0")
        return json.loads(message)

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-2000:]

    def open(self, url):
        """A new tab with this page."""
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        tab = Tab(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.send(f"{domain}.enable")
        tab.send("Page.navigate", {"url": url})
        return tab


class Tab:
    """A page in the browser."""

    def __init__(self, browser, session, target):
        self.browser = browser
        self.session = session
        self.target = target

    def send(self, method, parameters=None):
        return self.browser.send(method, parameters, self.session)

    def show(self):
        """Brings it to the front, as somebody who clicks on its tab."""
        self.browser.send("Target.activateTarget", {"targetId": self.target})

    def value(self, expression):
        """What an expression gives in the page."""
        result = self.send("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in result:
            raise BrowserError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_for(self, what, expression):
        """Waits until an expression is true."""
        # A little before the end of all, so that there is time to say what the page shows.
        until = min(time.monotonic() + PATIENCE_S, self.browser.deadline - 2)
        while not self.value(f"Boolean({expression})"):
            if time.monotonic() > until:
                text = self.value("document.body.innerText")
                raise BrowserError(f"waited too long for: {what}. The page says:\n{text}\n{self.complaints()}")
            time.sleep(POLL_S)

    def click(self, selector):
        """Clicks with the mouse in the middle of an element."""
        place = self.value(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)}); found.scrollIntoView({{ block: 'center' }});"
            " const { x, y, width, height } = found.getBoundingClientRect(); return [x + width / 2, y + height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent",
                      {"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1})

    def type(self, text):
        """Types into what has the focus."""
        self.send("Input.insertText", {"text": text})

    def complaints(self):
        """What the browser said against the page: exceptions, and what its policy forbade."""
        wrong = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            details = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                wrong.append(str(details["exceptionDetails"]))
            if event["method"] == "Log.entryAdded" and details["entry"]["level"] == "error":
                wrong.append(f"{details['entry']['text']} {details['entry'].get('url', '')}")
        return wrong

    def requests(self):
        """The addresses that the page asked for, with those of WebSocket."""
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Network.requestWillBeSent":
                found.append(event["params"]["request"]["url"])
            if event["method"] == "Network.webSocketCreated":
                found.append(event["params"]["url"])
        return found
