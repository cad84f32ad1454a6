"""``face-recognition web SOURCE``: the operator's page in the browser, without ROS."""

from __future__ import annotations

import argparse
import sys

from face_recognition_node.cli.options import (
    add_address,
    add_gallery,
    add_settings,
    add_source,
    config_from,
    gallery_path_from,
    source_from,
)

EPILOG = """\
The page listens on this machine only unless --host names another address, which requires the printed token.

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
        "--rotate", type=int, default=0, choices=[0, 90, 180, 270], help="rotate frames clockwise, degrees"
    )
    add_settings(parser)


def tell(address: str) -> None:
    """Print where the page is."""
    print(f"The page is at {address}", flush=True)
    if "token=" in address:
        print("Whoever has this address sees the camera and can change the gallery.", flush=True)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
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
