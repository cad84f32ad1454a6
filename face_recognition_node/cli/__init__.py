"""The ``face-recognition`` command: one module per verb, imported only when it is used.

A verb's module offers ``configure(parser)`` and ``run(arguments) -> int``; the integer is the exit code:
0 done, 1 done but the answer is "no" (nobody recognized, nothing found), 2 wrong input or a failure with a
message on standard error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from face_recognition_node import __version__
from face_recognition_node.cli.options import add_verbs
from face_recognition_node.common.errors import FaceRecognitionError
from face_recognition_node.common.files import explain_os_error
from face_recognition_node.common.libraries import missing_library

# verb and the line that `--help` prints for it; `evaluate` and `benchmark` have verbs of their own
VERBS: dict[str, str] = {
    "recognize": "recognize people in a video, camera, picture, folder or bag",
    "rehearse": "report what would go wrong, from a video of the place and the gallery",
    "enroll": "enroll a person from a video, camera, picture or folder",
    "gallery": "list, rename, merge, forget, undo, export, import, verify",
    "adopt": "use any face network in an ONNX file as the embedder",
    "calibrate": "fit likelihood ratios to an embedder, from labeled faces",
    "evaluate": "measure verification, identification, or scenarios",
    "benchmark": "measure speed and memory",
    "prepare": "turn folders of photographs into aligned training faces",
    "teacher": "compute a teacher's embeddings for distillation",
    "train": "train a network from a recipe",
    "unlock": "say whether a face is the owner's (the Face ID systems)",
    "export": "convert a checkpoint to the files that the robot runs",
    "demo": "run the real nodes on a video and show the result",
    "web": "serve the operator's page: live picture, enrollment, people",
}
# verbs that make a model have a folder of their own
MODULES = {verb: f"models.{verb}" for verb in ("adopt", "calibrate", "export", "prepare", "teacher", "train")}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="face-recognition", description="Face recognition for service robots."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--log-level", default="warning", choices=["debug", "info", "warning", "error"])
    add_verbs(parser, VERBS, MODULES, dest="verb", metavar="VERB")
    return parser


def in_main_thread() -> bool:
    """Say whether signals can be caught here."""
    return threading.current_thread() is threading.main_thread()


def reopen_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed: the next file would take its number.

    What libraries write to stderr would then be written into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, so this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    reopen_closed_streams()
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=arguments.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    if not sys.stderr.isatty():  # a log file wants a line now and then, not ten a second
        os.environ.setdefault("TQDM_MININTERVAL", "30")
    # training leaves a stop to Lightning, which may be told to ride it out
    is_ours = arguments.verb != "train" and in_main_thread()
    for number in (signal.SIGTERM, signal.SIGHUP):  # to be stopped is to be interrupted
        if is_ours and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name must not fail for the terminal's encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    return run_guarded(f"face-recognition {arguments.verb}", arguments.run, arguments)


def run_guarded(name: str, run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Return a command's exit code; a failure that the user can cure is a line, not a traceback."""
    try:
        code = int(run(arguments))
        if sys.stdout is not None:  # closed by the parent process
            sys.stdout.flush()  # here, where it can still be told that nobody reads it
        return code
    except BrokenPipeError:  # the reader of the answers has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, FaceRecognitionError) as error:
        logging.debug("where it happened", exc_info=True)
        print(f"{name}: {explain_os_error(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"{name}: {missing_library(error) or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # 1 would mean "no"
        logging.debug("where it happened", exc_info=True)
        what = f"unexpected {type(error).__name__}: {error}; --log-level debug shows where"
        print(f"{name}: {what}", file=sys.stderr)
        return 2
