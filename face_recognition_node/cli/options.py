"""What several verbs share: how they are found, arguments, JSON for programs, the progress bar."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_recognition_node.common.errors import (
    ConfigurationError,
    GalleryUnavailableError,
    InputError,
    SourceError,
)
from face_recognition_node.common.files import PRIVATE, user_path, write_json

if TYPE_CHECKING:
    from face_recognition_node.assembly import Pipeline
    from face_recognition_node.config import Config, ModelsConfig
    from face_recognition_node.media.sources import FrameSource

DEFAULT_PORT = 8642
STANDARD_OUTPUT = "-"
SOURCE_HELP = "camera number (0), video, GIF, picture, folder of pictures, ROS 2 bag, URL, or 'sample'"


class VerbParser(argparse.ArgumentParser):
    """A parser that fills itself from its verb's module the moment it is used."""

    module: str | None = None

    def parse_known_args(  # type: ignore[override]  # argparse overloads it for namespaces nobody passes here
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Import and ask the verb's module for its arguments, then parse."""
        if self.module is not None:
            module, self.module = importlib.import_module(self.module), None
            if hasattr(module, "EPILOG"):
                self.epilog, self.formatter_class = module.EPILOG, argparse.RawDescriptionHelpFormatter
            module.configure(self)
            if hasattr(module, "run"):
                self.set_defaults(run=module.run)
        return super().parse_known_args(args, namespace)


def add_verbs(
    parser: argparse.ArgumentParser, verbs: Mapping[str, str], modules: Mapping[str, str], **options: Any
) -> None:
    """Give ``parser`` one verb per entry; ``modules`` are the modules of those that are not called so."""
    subparsers = parser.add_subparsers(required=True, parser_class=VerbParser, **options)
    for verb, summary in verbs.items():
        sub = subparsers.add_parser(verb, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        sub.module = f"face_recognition_node.cli.{modules.get(verb, verb)}"


def given_path(text: str) -> Path:
    """Return the path that an argument names (its type): each goes through the one gate."""
    try:
        return user_path(text, "any")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def not_blank(text: str) -> str:
    """Return an argument that must not be blank (its type), as an unset variable of the shell is."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a text, got an empty one")
    return text


def file_to_write(text: str) -> Path:
    """Return the file that an argument names (its type); a mistake is told before the work, not after it."""
    from face_recognition_node.gallery.schema import is_part_of_gallery

    path = given_path(text)
    if os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is a folder; expected the name of a file in it")
    # the file comes to its place whole, which would replace a device
    if os.path.exists(path) and not path.is_file():
        raise argparse.ArgumentTypeError(f"{path} is a device or a pipe; expected the name of a file")
    if is_part_of_gallery(path):
        raise argparse.ArgumentTypeError(f"{path} is part of a gallery, which would be overwritten")
    # of what lies in a folder that may not be entered, os.path says that it does not exist; pathlib raises
    folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise argparse.ArgumentTypeError(f"{path} cannot be written; expected a place in a writable folder")
    return path


def file_or_stream(text: str) -> str:
    """Return the file that an argument names, as :func:`file_to_write` does, ``-``, or a device or a pipe."""
    return str(given_path(text) if is_stream(text) else file_to_write(text))


def is_stream(text: str) -> bool:
    """Say whether this is standard output, a device or a pipe: something to write to, and not to replace."""
    path = given_path(text)
    return text == STANDARD_OUTPUT or (os.path.exists(path) and not path.is_file() and not path.is_dir())


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE and what part of it to use."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help=SOURCE_HELP)
    add("--start", type=float, default=0.0, metavar="S", help="start at this second (default 0)")
    add("--end", type=float, metavar="S", help="stop before this second")
    add("--rate", type=float, metavar="HZ", help="frames per second (default: the source's)")
    add("--topic", default="", help="topic of the images in a ROS 2 bag, if it has several")


def source_from(arguments: argparse.Namespace) -> FrameSource:
    """Open the source that :func:`add_source` read."""
    from face_recognition_node.media.sources import open_source

    source = open_source(arguments.source, rate=arguments.rate, topic=arguments.topic)
    return source.between(arguments.start, arguments.end)


def require_frames(n_frames: int, source: FrameSource) -> None:
    """Raise SourceError if a source gave no frame at all; say what of it could not be read."""
    if source.problems:
        print(f"{len(source.problems)} part(s) of {source.name} could not be read:", file=sys.stderr)
        for problem in source.problems[:10]:
            print(f"  {problem}", file=sys.stderr)
        if len(source.problems) > 10:
            print(f"  and {len(source.problems) - 10} more", file=sys.stderr)
    if n_frames == 0:
        raise SourceError(f"{source.name}: no frame in the part chosen by --start and --end")


def add_gallery(parser: argparse.ArgumentParser) -> None:
    """Add --gallery."""
    parser.add_argument(
        "--gallery",
        type=given_path,
        metavar="FILE",
        help="gallery file (default: face_recognition_node/gallery.db in the user's data folder)",
    )


def gallery_path_from(arguments: argparse.Namespace, *, must_exist: bool = False) -> Path:
    """Return the gallery's path; GalleryUnavailableError if it has to exist and does not."""
    from face_recognition_node.gallery.files import default_gallery_path

    path: Path = arguments.gallery or default_gallery_path()
    if must_exist and not path.is_file():
        enroll = f"face-recognition enroll NAME SOURCE --gallery {path}"
        raise GalleryUnavailableError(f"there is no gallery at {path}; enroll somebody first: {enroll}")
    return path


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add --models, --backend and --set."""
    add = parser.add_argument
    add("--models", metavar="DIR", help="folder of model files (default: the package's)")
    add("--backend", metavar="NAME", help="auto, openvino, onnxruntime, torch … (default auto)")
    add(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter, for example identity.target_false_accept_rate=0.001; may be repeated",
    )


def config_from(arguments: argparse.Namespace) -> Config:
    """Return the parameters of :func:`add_settings`; ConfigurationError for an unknown name or bad value."""
    from face_recognition_node.common.parameters import flatten, with_values
    from face_recognition_node.config import Config

    config = Config()
    defaults = {name: declared.default for name, declared, _ in flatten(config)}
    values: dict[str, object] = {}
    if arguments.models:
        values["models.models_dir"] = arguments.models
    if arguments.backend:
        values["models.backend"] = arguments.backend
    for setting in arguments.settings:
        name, text = split_setting(setting)
        values[name] = parse_value(name, text, defaults.get(name, text))
    return with_values(config, values)


def split_setting(setting: str) -> tuple[str, str]:
    """Return name and value of NAME=VALUE, or of NAME:=VALUE as ROS writes it."""
    name, equals, text = setting.partition("=")
    if not equals:
        raise ConfigurationError(f"--set: expected NAME=VALUE, got {setting!r}")
    return name.removesuffix(":"), text


def add_pipeline(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`open_pipeline` needs."""
    add_gallery(parser)
    parser.add_argument(
        "--rotate", type=int, default=0, choices=[0, 90, 180, 270], help="rotate frames clockwise, degrees"
    )
    add_settings(parser)


def open_pipeline(
    arguments: argparse.Namespace, gallery: Path | None, settings: Mapping[str, object] = {}, **options: Any
) -> Pipeline:
    """Open the pipeline of :func:`add_pipeline`, with the verb's own settings; no gallery: in memory."""
    from face_recognition_node.assembly import Pipeline
    from face_recognition_node.common.parameters import with_values

    config = with_values(config_from(arguments), settings)
    return Pipeline.open(config, gallery, rotate=arguments.rotate, **options)


def parse_value(name: str, text: str, default: object) -> object:
    """Return ``text`` in the type of ``default``; a text that cannot be it raises ConfigurationError."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigurationError(f"{name}: expected true or false, got {text!r}")
        return text.lower() == "true"
    if isinstance(default, (int, float)):
        kind = type(default)
        try:
            return kind(text)
        except ValueError as error:
            raise ConfigurationError(f"{name}: expected {kind.__name__}, got {text!r}") from error
    return text


def add_model_options(parser: argparse.ArgumentParser, *, only: tuple[str, ...] = ()) -> None:
    """Add ``--models-dir``, ``--backend`` … to ``parser``; ``only`` names the wanted fields (none: all)."""
    from face_recognition_node.common.parameters import flatten
    from face_recognition_node.config import ModelsConfig

    group = parser.add_argument_group("models")
    for name, declared, _ in flatten(ModelsConfig()):
        if not only or name in only:
            group.add_argument(
                "--" + name.replace("_", "-"),
                type=type(declared.default),
                choices=declared.choices or None,
                default=declared.default,
                metavar=None if declared.choices else name.upper(),
                help=declared.description,
            )


def models_config(arguments: argparse.Namespace) -> ModelsConfig:
    """Return the models that the command line asks for."""
    from face_recognition_node.common.parameters import with_values
    from face_recognition_node.config import ModelsConfig

    names = [field.name for field in dataclasses.fields(ModelsConfig)]
    return with_values(
        ModelsConfig(), {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    )


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add --progress and --no-progress; by default there is a bar on a terminal only."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show a progress bar on standard error (default: on a terminal only)",
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add --host and --port of the operator's page."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument(
        "--port", type=port, default=DEFAULT_PORT, help=f"port; 0: any (default {DEFAULT_PORT})"
    )


def port(text: str) -> int:
    """Return the port that an argument names (its type)."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {text!r}")
    return int(text)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json [FILE]``."""
    parser.add_argument(
        "--json",
        nargs="?",
        const=STANDARD_OUTPUT,
        type=file_or_stream,
        metavar="FILE",
        help="print the figures as JSON instead of text, or write them to FILE",
    )


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` without a file, to a verb whose positional arguments may follow it."""
    parser.add_argument(
        "--json", action="store_const", const=STANDARD_OUTPUT, help="print JSON instead of text"
    )


def report(text: str, figures: Any, target: str | None) -> None:
    """Print ``text``, or the figures as JSON; with a file, write them there and print the text."""
    if target == STANDARD_OUTPUT:
        print(json.dumps(figures, indent=1, ensure_ascii=False))
        return
    if target is not None and is_stream(target):
        Path(target).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    elif target is not None:
        write_json(Path(target), figures, PRIVATE)
    print(text)
