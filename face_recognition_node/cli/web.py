"""``face-recognition web SOURCE``: the operator's page in the browser, without ROS."""

from __future__ import annotations

import argparse
import importlib.util
import sys

from face_recognition_node.cli.options import (
    add_gallery,
    add_settings,
    add_source,
    config_from,
    gallery_path_from,
    source_from,
)
from face_recognition_node.common.errors import ConfigurationError

DEFAULT_PORT = 8642
EPILOG = """\
The page is for this machine alone unless --host names another address; then it needs the printed token.

exit codes: 0 ended by Ctrl-C, 2 wrong input or failure

examples:
  face-recognition web 0 --gallery party.db                      # a webcam
  face-recognition web sample --gallery /tmp/try.db              # the built-in clip
  face-recognition web 0 --gallery party.db --host 192.168.1.5   # for the laptop beside the robot
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    add_source(parser)
    add_gallery(parser)
    add_address(parser)
    parser.add_argument(
        "--rotate", type=int, default=0, choices=[0, 90, 180, 270], help="turn frames clockwise first"
    )
    add_settings(parser)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add --host and --port."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"port; 0: any (default {DEFAULT_PORT})"
    )


def require_library() -> None:
    """Raise ConfigurationError with the cure where the page's library is not installed."""
    if importlib.util.find_spec("aiohttp") is None:
        raise ConfigurationError(
            "the page needs the Python library aiohttp; cure: python3 -m pip install aiohttp "
            "(requirements/web.txt of the source tree)"
        )


def tell(address: str) -> None:
    """Print where the page is."""
    print(f"The page is at {address}", flush=True)
    if "token=" in address:
        print("Whoever has this address sees the camera and can change the gallery.", flush=True)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    require_library()
    from face_recognition_node.assembly import Pipeline
    from face_recognition_node.web.local import LocalOperator
    from face_recognition_node.web.server import Page, serve_until_stopped

    source = source_from(arguments)
    path, config = gallery_path_from(arguments), config_from(arguments)
    print("Loading the models …", file=sys.stderr, flush=True)
    with (
        Pipeline.open(config, path, rotate=arguments.rotate, learns=True, is_live=True) as pipeline,
        LocalOperator(pipeline, source) as operator,
    ):
        serve_until_stopped(Page(operator, arguments.host, arguments.port), tell)
    return 0
