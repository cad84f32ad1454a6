"""``face-recognition web SOURCE``: the operator's page in the browser, without ROS."""

from __future__ import annotations

import argparse
import sys

from face_recognition_node.cli.options import (
    add_address,
    add_pipeline,
    add_source,
    gallery_path_from,
    open_pipeline,
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
    add_source(parser)
    add_pipeline(parser)
    add_address(parser)


def tell(address: str) -> None:
    """Print where the page is."""
    print(f"The page is at {address}", flush=True)
    if "token=" in address:
        print("Anybody with this address sees the camera and can change the gallery.", flush=True)


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from face_recognition_node.web.local import LocalOperator
    from face_recognition_node.web.server import Page, serve_until_stopped

    source = source_from(arguments)
    path = gallery_path_from(arguments)
    print("Loading the models …", file=sys.stderr, flush=True)
    with (
        open_pipeline(arguments, path, learns=True, is_live=True) as pipeline,
        LocalOperator(pipeline, source) as operator,
    ):
        serve_until_stopped(Page(operator, arguments.host, arguments.port), tell)
    return 0
