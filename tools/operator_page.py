"""Measure the operator's page beside the real nodes, and take its pictures for the docs.

    ./run setup web test && ./run exec python tools/operator_page.py            # figures
    ./run exec python tools/operator_page.py --pictures docs/images             # light, dark and phone, too

Plays the packaged sample video in a loop. Rounds without the page's process, with the page closed, and with a
visitor who takes the stream as a distant browser does alternate, because machines are noisy. First paint and
pictures need chromium and its driver.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from command import run_tool

from face_recognition_node.cli.processes import Children, isolated_environment, process_usage
from face_recognition_node.common.errors import ConfigurationError

NODE, SOURCE = "/face_recognition", "/video_source"
ENTRY, QUIET = "face_recognition_node.ros.main", ("--log-level", "error")
CHROMIUM_OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1280,960"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (default 5)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a round (default 8)")
    parser.add_argument("--rate", type=float, default=30.0, help="frames per second (default 30)")
    parser.add_argument(
        "--node", nargs="*", default=[], metavar="PARAMETER:=VALUE", help="parameters of the recognition node"
    )
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write pictures of the page there")


def run(arguments: argparse.Namespace) -> int:
    """Print the figures."""
    os.environ.update(isolated_environment(os.environ))
    with (
        tempfile.TemporaryDirectory() as folder,
        robot(Path(folder), arguments) as (children, node, remote, address),
    ):
        if arguments.rounds:
            figures(children, node, remote, address, arguments.rounds, arguments.seconds)
        start_page(children, address)
        if shutil.which("chromium") and shutil.which("chromedriver"):
            with browser() as driver:
                paint(driver, address)
                if arguments.pictures:
                    pictures(driver, arguments.pictures)
        elif arguments.pictures:
            raise ConfigurationError("no chromium here; cure: sudo apt install chromium chromium-driver")
    return 0


@contextmanager
def robot(folder: Path, arguments: argparse.Namespace) -> Iterator[tuple[Children, int, Any, str]]:
    """Run camera and node; yield the processes, the node's id, a client and the address of a page to come."""
    from lifecycle_msgs.msg import State

    from face_recognition_node.ros.remote import Remote

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = [
        part for one in (f"gallery_path:={folder / 'gallery.db'}", *arguments.node) for part in ("-p", one)
    ]
    camera = ["-p", "source:=sample", "-p", f"rate:={arguments.rate}"]
    with Children() as children:
        recognition = children.start("node", f"{ENTRY}:main", [*QUIET, *given])
        children.start("camera", f"{ENTRY}:video_source", [*QUIET, *camera])
        with Remote("operator_page", children.check) as remote:
            for node in (NODE, SOURCE):
                remote.bring_to(node, State.PRIMARY_STATE_ACTIVE, 60.0)
            yield children, recognition.pid, remote, f"http://127.0.0.1:{port}"


def start_page(children: Children, address: str) -> int:
    """Start the page, wait until it answers, and return its process."""
    port = int(address.rpartition(":")[2])
    page = children.start("page", f"{ENTRY}:web", [*QUIET, "-p", f"port:={port}"])
    while True:
        children.check()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return page.pid
        time.sleep(0.1)


def figures(children: Children, node: int, remote: Any, address: str, n_rounds: int, seconds: float) -> None:
    """Measure rounds without the page, with the page closed, and with somebody who looks."""
    from face_recognition_interfaces.msg import FaceArray

    latencies: list[float] = []

    def take(message: Any) -> None:
        stamp = message.header.stamp
        latencies.append(1000 * (time.time() - stamp.sec - stamp.nanosec * 1e-9))

    def measure(page: int | None, work: Callable[[], Any]) -> tuple[float, ...]:
        """Measure one round.

        Returns:
            Of the node: p50 and p95 (ms), CPU an answer (ms), memory (MB). Of the page: share of a core,
            memory (MB), pictures a second.
        """
        processes = (node, node if page is None else page)
        time.sleep(2.0)  # until what has just begun is done with beginning
        latencies.clear()
        before, began = [process_usage(one)[0] for one in processes], time.monotonic()
        n_pictures = work() or 0
        length = time.monotonic() - began
        after = [process_usage(one) for one in processes]
        used = [usage[0] - earlier for usage, earlier in zip(after, before, strict=True)]
        sizes = [usage[1] / 1e6 for usage in after]
        p50, p95 = np.percentile(latencies, [50, 95])
        an_answer = 1000 * used[0] / len(latencies)
        return (p50, p95, an_answer, sizes[0], used[1] / length, sizes[1], n_pictures / length)

    remote.node.create_subscription(FaceArray, f"{NODE}/faces", take, 30)
    rounds: dict[str, list[tuple[float, ...]]] = {"no page": [], "page closed": [], "page open": []}
    for _ in range(n_rounds):
        rounds["no page"].append(measure(None, lambda: time.sleep(seconds)))
        page = start_page(children, address)
        rounds["page closed"].append(measure(page, lambda: time.sleep(seconds)))
        rounds["page open"].append(measure(page, lambda: asyncio.run(look(address, seconds))))
        children.end("page")
    print(f"load {os.getloadavg()[0]:.1f}; medians of {n_rounds} rounds of {seconds:g} s")
    print(
        f"{'':12}  {'node p50':>9}  {'p95':>9}  {'an answer':>10}  {'memory':>7}  {'page':>8}  {'memory':>7}"
    )
    for name, rows in rounds.items():
        p50, p95, an_answer, node_mb, share, size, rate = np.median(rows, axis=0)
        line = f"{name:12}  {p50:6.1f} ms  {p95:6.1f} ms  {an_answer:7.1f} ms  {node_mb:4.0f} MB"
        line += "" if name == "no page" else f"  {share:8.1%}  {size:4.0f} MB"
        print(line + (f"  {rate:.1f} pictures/s" if rate else ""))
    late = {name: np.median([row[1] for row in rows]) for name, rows in rounds.items()}
    print(f"the node's p95 with one browser: {late['page open'] / late['page closed'] - 1:+.0%}")


async def look(address: str, seconds: float) -> int:
    """Take the stream for so long, as the page's script does; return the number of pictures."""
    import aiohttp

    n_pictures, end = 0, time.monotonic() + seconds
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{address}/live", origin=address) as stream,
    ):
        while time.monotonic() < end:
            message = await stream.receive(timeout=30.0)
            if message.type is aiohttp.WSMsgType.BINARY:
                n_pictures += 1
                await stream.send_str("shown")
    return n_pictures


@contextmanager
def browser() -> Iterator[Any]:
    """Run chromium with a profile of its own."""
    from selenium import webdriver

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for argument in (*CHROMIUM_OPTIONS.split(), f"--user-data-dir={profile}"):
            options.add_argument(argument)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()


def paint(driver: Any, address: str) -> None:
    """Print when the page and its first picture were there."""
    shown = []
    for _ in range(5):
        driver.get(address)
        wait(driver, "document.querySelector('#canvas[data-frames]')")
        script = "return [performance.getEntriesByType('paint').at(-1).startTime, performance.now()]"
        shown.append(driver.execute_script(script))
    first, picture = np.median(shown, axis=0)
    print(f"first paint     {first:6.0f} ms; first live picture within {picture:.0f} ms   (median of 5)")


def wait(driver: Any, condition: str, patience: float = 60.0) -> None:
    """Wait until JavaScript finds something."""
    end = time.monotonic() + patience
    while not driver.execute_script(f"return Boolean({condition})"):
        if time.monotonic() > end:
            raise ConfigurationError(f"the page never showed {condition}")
        time.sleep(0.05)


def pictures(driver: Any, folder: Path) -> None:
    """Enroll the first face and write the page light, dark and on a phone."""
    for _ in range(20):  # the camera moves on: a face may leave before enough is seen of it
        wait(driver, "document.querySelector('.chip.stranger')")
        driver.execute_script("document.querySelector('.chip.stranger').click()")
        wait(driver, "document.querySelector('#face-panel')")
        driver.execute_script(
            "const field = document.getElementById('enroll-name');"
            "if (field) { field.value = 'Guest'; document.getElementById('enroll-start').click(); }"
        )
        wait(driver, "document.querySelector('#outcome')")
        stored = driver.execute_script("return document.querySelector('#outcome h2').textContent")
        if stored == "Guest stored":
            break
    shown = "document.querySelector('.chip.known') && document.querySelector('.chip.stranger')"
    wait(driver, shown)
    write(driver, folder / "web_light.jpg")
    driver.execute_script(
        "document.getElementById('theme').click(); document.getElementById('tab-accuracy').click()"
    )
    wait(driver, f"document.querySelector('#target') && {shown}")
    write(driver, folder / "web_dark.jpg")
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1.5, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    driver.execute_script(
        "document.getElementById('theme').click(); document.getElementById('tab-people').click()"
    )
    wait(driver, shown)
    write(driver, folder / "web_phone.jpg")


def write(driver: Any, path: Path) -> None:
    """Write what the browser shows."""
    import cv2

    shot = cv2.imdecode(np.frombuffer(driver.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(path), shot, [cv2.IMWRITE_JPEG_QUALITY, 76])
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))
