"""Measure the operator's page beside the real nodes, and take its pictures for the docs.

    ./run setup web test && ./run exec python tools/operator_page.py            # figures
    ./run exec python tools/operator_page.py --pictures docs/images             # light, dark and phone, too

Plays the packaged sample video in a loop. A visitor takes the stream as a distant browser does; rounds with
and without it alternate, because machines are noisy. First paint and pictures need chromium and its driver.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from command import run_tool

from face_recognition_node.cli.processes import Children, isolated_environment, process_usage
from face_recognition_node.common.errors import ConfigurationError

NODE, SOURCE = "/face_recognition", "/video_source"
CHROMIUM_OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1280,800"
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
        robot(Path(folder), arguments) as (remote, page, address),
    ):
        if arguments.rounds:
            figures(remote, page, address, arguments.rounds, arguments.seconds)
        if shutil.which("chromium") and shutil.which("chromedriver"):
            with browser() as driver:
                paint(driver, address)
                if arguments.pictures:
                    pictures(driver, arguments.pictures)
        elif arguments.pictures:
            raise ConfigurationError("no chromium here; cure: sudo apt install chromium chromium-driver")
    return 0


@contextmanager
def robot(folder: Path, arguments: argparse.Namespace) -> Iterator[tuple[Any, Any, str]]:
    """Run camera, recognition node and page; yield a client, the page's process and its address."""
    from lifecycle_msgs.msg import State

    from face_recognition_node.ros.remote import Remote

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    entry, quiet = "face_recognition_node.ros.main", ["--log-level", "error"]
    with Children() as children:
        given = [
            part
            for one in (f"gallery_path:={folder / 'gallery.db'}", *arguments.node)
            for part in ("-p", one)
        ]
        children.start("node", f"{entry}:main", [*quiet, *given])
        children.start(
            "camera",
            f"{entry}:video_source",
            [*quiet, "-p", "source:=sample", "-p", f"rate:={arguments.rate}"],
        )
        page = children.start("page", f"{entry}:web", [*quiet, "-p", f"port:={port}"])
        with Remote("operator_page", children.check) as remote:
            for node in (NODE, SOURCE):
                remote.bring_to(node, State.PRIMARY_STATE_ACTIVE, 60.0)
            yield remote, page, f"http://127.0.0.1:{port}"


def figures(remote: Any, page: Any, address: str, n_rounds: int, seconds: float) -> None:
    """Measure rounds without and with somebody who looks."""
    from face_recognition_interfaces.msg import FaceArray

    latencies: list[float] = []

    def take(message: Any) -> None:
        stamp = message.header.stamp
        latencies.append(1000 * (time.time() - stamp.sec - stamp.nanosec * 1e-9))

    remote.node.create_subscription(FaceArray, f"{NODE}/faces", take, 30)
    time.sleep(3.0)
    alone, watched, shares, rates = [], [], [], []
    for _ in range(n_rounds):
        latencies.clear()
        time.sleep(seconds)
        alone.append(np.percentile(latencies, [50, 95]))
        used, began = process_usage(page.pid)[0], time.monotonic()
        latencies.clear()
        n_pictures = asyncio.run(look(address, seconds))
        length = time.monotonic() - began
        watched.append(np.percentile(latencies, [50, 95]))
        shares.append((process_usage(page.pid)[0] - used) / length)
        rates.append(n_pictures / length)
    (p50, p95), (p50_watched, p95_watched) = np.median(alone, axis=0), np.median(watched, axis=0)
    print(f"stream          {np.median(rates):6.1f} pictures/s   (answers of the node that the page shows)")
    print(f"page's process  {np.median(shares):6.1%} of a core")
    print(f"node, page closed: p50 {p50:6.1f} ms, p95 {p95:6.1f} ms")
    growth = p95_watched / p95 - 1
    print(f"node, page open:   p50 {p50_watched:6.1f} ms, p95 {p95_watched:6.1f} ms ({growth:+.0%})")


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
    for _ in range(6):  # the camera moves on: a face may leave before enough is seen of it
        wait(driver, "document.querySelector('.chip.stranger')")
        driver.execute_script("document.querySelector('.chip.stranger').click()")
        wait(driver, "document.querySelector('#face-panel')")
        driver.execute_script(
            "const field = document.getElementById('enroll-name');"
            "if (field) { field.value = 'Guest'; document.getElementById('enroll-start').click(); }"
        )
        wait(driver, "document.querySelector('#outcome')")
        stored = driver.execute_script("return document.querySelector('#outcome h2').textContent")
        if "stored" in stored:
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
    cv2.imwrite(str(path), shot, [cv2.IMWRITE_JPEG_QUALITY, 86])
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))
