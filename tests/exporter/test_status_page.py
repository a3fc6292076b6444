"""The status page in a real browser: it shows what echod reports, and that is never more than text."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import TypeAdapter
from support.daemon import Daemon, connect_udp
from support.ports import free_port
from support.scraping import CHROMIUM, CHROMIUM_QUIET, answers, fetch, metered, needs_chromium, status
from support.snapshots import IN_MODES, KERNEL, make_snapshot
from support.waiting import wait_until

from echod.exporter.status_page import PAGE
from echod.stats.snapshot import Kernel

HOSTILE = "<img src=/stolen onerror=\"document.title='stolen'\"><script>document.title='stolen'</script>"

PHONE = 360
"""Pixels: a narrow phone."""

FRAME = f"""<!doctype html><title>frame</title><iframe src="/" width="{PHONE}" height="900"></iframe><script>
const look = () => {{
  const page = document.querySelector("iframe").contentDocument;
  document.title = JSON.stringify({{
    title: page.title, width: page.documentElement.scrollWidth, images: page.images.length,
    scripts: page.scripts.length, paper: getComputedStyle(page.body).backgroundColor,
    text: page.body.innerText, state: page.getElementById("state").textContent,
  }});
  setTimeout(look, 500);
}};
setTimeout(look, 500);
</script>"""
"""Looks into the page on a phone, which cannot be done from within: its policy lets nothing in."""


def browse(folder: Path, url: str, *options: str) -> str:
    """Return the document as a browser has it after some seconds of its own time."""
    command = [*CHROMIUM, *CHROMIUM_QUIET, f"--user-data-dir={folder}/profile", "--virtual-time-budget=5000", *options]
    result = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=90, check=True)
    return result.stdout


@contextmanager
def reported(snapshot: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Serve the page with a status of the test's own, and without its policy; give the URL and what is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = {"/": PAGE.body, "/frame": FRAME.encode(), "/status.json": json.dumps(snapshot).encode()}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.get(self.path, b""))

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/frame", asked
        finally:
            server.shutdown()
            thread.join()


def poisoned(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Put the hostile text in the place of every text, and of every key of what is counted by name."""
    if isinstance(value, dict):
        counted = value and all(isinstance(each, int) for each in value.values())
        return {HOSTILE if counted else key: poisoned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


@needs_chromium
def test_a_browser_shows_what_echod_says(echod: Callable[..., Daemon], tmp_path: Path) -> None:
    """Listeners, workers, drops with their reason, the top source and the self test, by its one script."""
    port = free_port()
    names = [f"udp://127.0.0.1:{port}", f"tcp://[::1]:{port}"]
    config, http = metered(*names, guard={"min_source_port": 65_535})
    daemon = echod(config)
    with connect_udp("127.0.0.1", port) as client:
        client.send(b"hi")  # to which there is no answer
    wait_until(lambda: status(http)["activity"]["udp"][0]["dropped"], "the drop was reported")

    def settled() -> str:
        """Browse again where a worker was late: on a busy machine it may be, and be replaced, at the start."""
        document = browse(tmp_path, f"http://127.0.0.1:{http}/")
        shown = [">self test passed</span>", *(f">{worker}</td>" for worker in daemon.workers())]
        return document if all(each in document for each in shown) else ""

    document = wait_until(settled, "the page had the workers of now, and a self test that passed", seconds=60)
    for name in names:
        assert f">{name}</td>" in document
    assert ">dropped source port low: 1" in document
    assert '<span class="pill good" id="state">serving</span>' in document
    assert 'id="version">0.' in document


@needs_chromium
def test_listeners_are_shown_with_their_modes_and_what_those_count(tmp_path: Path) -> None:
    """The counters of TR-143 have a table; what was dropped on purpose alone is no warning."""
    snapshot = json.loads(make_snapshot(activity=IN_MODES).pack())
    with reported(snapshot) as (url, _):
        page = browse(tmp_path, url.replace("frame", ""))
    for shown in (
        ">udp://0.0.0.0:7070 (udpecho_plus)</td>",
        ">udp://127.0.0.1:7072 (impaired echo)</td>",
        ">tcp://127.0.0.1:9 (discard)</td>",
        "held now: 80",
        "impaired sent out of order: 12 · impaired sent twice: 11 · impaired corrupted: 1",
        ">TimeFirstPacketReceived</th>",
        ">2008-04-09T15:01:05.123456</td>",
        ">72,432</td>",
    ):
        assert shown in page, shown
    dropped = r'<b class="(\w*)">(\d+)</b><span class="">dropped, total</span>'
    assert re.findall(dropped, page) == [("warn", "26")]
    snapshot["activity"]["udp"][0]["dropped"] = {}
    with reported(snapshot) as (url, _):
        page = browse(tmp_path, url.replace("frame", ""))
    assert re.findall(dropped, page) == [("", "25")]


def test_the_page_needs_nothing_from_elsewhere(echod: Callable[..., Daemon]) -> None:
    """It names no other host, and its policy lets nothing run or load but what stands in it."""
    config, http = metered(f"udp://127.0.0.1:{free_port()}")
    echod(config)
    wait_until(lambda: answers(http), "the exporter served")
    page = fetch(http, "/")[2]
    assert set(re.findall(r"[a-z]+://[\w.]+", page)) == {"http://www.w3.org"}  # the name of SVG, in an icon
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", re.sub(r'href="data:[^"]*"', "", page)) == [
        "/metrics",
        "/healthz",
        "/readyz",
        "/status.json",
    ]
    policy = dict(PAGE.headers)["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'; ")
    assert "unsafe" not in policy


@needs_chromium
@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(251, 251, 249)"), ("dark", "rgb(20, 24, 26)")])
def test_what_comes_from_outside_is_text_on_a_phone_in_light_and_dark(
    echod: Callable[..., Daemon], tmp_path: Path, scheme: str, paper: str
) -> None:
    """With markup in every text there is, also without a policy, nothing of it runs; it fits a phone.

    What an accelerator reports is added to what the sockets have.
    """
    port = free_port()
    config, http = metered(f"udp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}", access={"deny": ["127.0.0.1"]})
    echod(config)
    with connect_udp("127.0.0.1", port) as client:
        client.send(b"hi")  # to which there is no answer
    snapshot = wait_until(lambda: found if (found := status(http))["activity"]["refused"] else None, "a refusal")
    snapshot |= {"kernel": json.loads(TypeAdapter(Kernel).dump_json(KERNEL)), "kernel_problem": "old"}
    snapshot |= {"started": 0.0, "started_monotonic": 339.0, "at_monotonic": 8000.0}  # and no clock that was set
    options = [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"]
    with reported(poisoned(snapshot)) as (url, asked):
        document = browse(tmp_path, url, *options)
    (title,) = re.findall("<title>(.*?)</title>", document, re.DOTALL)
    seen = json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert (seen["title"], seen["images"], seen["scripts"]) == ("echod", 0, 1)
    assert seen["text"].count(HOSTILE[:20]) > 10
    # Of the reasons to drop, which all have one name here, the last is left: 100.
    for shown in ("8,999,101\nreceived, total\n8,999,100 of them by the kernel", "paths: 12", "549 MiB"):
        assert shown in seen["text"], seen["text"]
    assert "up 2 h 7 min," in seen["text"]
    assert "/stolen" not in asked
    assert (seen["state"], seen["paper"]) == ("serving", paper)
    assert seen["width"] <= PHONE
