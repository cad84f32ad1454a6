"""Child processes that never outlive us, in a ROS network of their own."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from face_recognition_node.common.closing import Closing
from face_recognition_node.common.errors import (
    BackendUnavailableError,
    ConfigurationError,
    FaceRecognitionError,
)
from face_recognition_node.common.resources import config_directory

# how long a child may take to end after each signal; the next one is stronger
PATIENCE_S = {signal.SIGINT: 8.0, signal.SIGTERM: 3.0, signal.SIGKILL: 3.0}
_PR_SET_PDEATHSIG = 1
_claims: list[socket.socket] = []


class ChildError(FaceRecognitionError):
    """A child process ended when it should not have."""


def enter_own_network() -> None:
    """Put this process and its children into a ROS network of their own, or raise BackendUnavailableError."""
    if importlib.util.find_spec("rclpy") is None:
        raise BackendUnavailableError("ROS 2 was not found: use ./run, or source your ROS installation first")
    os.environ.update(isolated_environment(os.environ))


def isolated_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what to add to ``environment`` for a ROS network that nobody else on this machine is in.

    What the user has set stays: ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE and Fast DDS's profile.
    """
    wanted = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    if not environment.get("ROS_DOMAIN_ID"):
        wanted["ROS_DOMAIN_ID"] = str(_claim_domain())
    profile = fast_dds_profile()
    if profile is not None:
        wanted["FASTDDS_DEFAULT_PROFILES_FILE"] = str(profile)
    return {name: value for name, value in wanted.items() if not environment.get(name)}


def _claim_domain() -> int:
    """Return a ROS domain that is this process's until it ends: no other one is given it meanwhile."""
    domains = random.SystemRandom().sample(range(1, 102), 101)
    for domain in domains:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0face_recognition_node.ros_domain.{domain}")  # a name that ends with the process
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return domain
    return domains[0]


def fast_dds_profile() -> Path | None:
    """Return the package's Fast DDS profile, without which most raw images are lost, or None."""
    try:
        profile = config_directory() / "fastdds_profile.xml"
    except ConfigurationError:
        return None
    return profile if profile.is_file() else None


class Children(Closing):
    """Starts processes and ends them all when the ``with`` block does, however it does."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, entry: str, ros_arguments: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Run the function ``module:function`` with ``--ros-args …`` under a name for messages.

        The child has a session of its own, so that a Ctrl-C in the terminal reaches us alone and we can end
        the children in order; should we be killed, the kernel ends it.
        """
        module, _, function = entry.partition(":")
        program = f"import sys; from {module} import {function}; sys.exit({function}())"
        command = [sys.executable, "-c", program]
        if ros_arguments:
            command += ["--ros-args", *ros_arguments]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent()
        )
        self._running[name] = child
        return child

    def check(self) -> None:
        """Raise ChildError if a child has ended."""
        for name, child in self._running.items():
            code = child.poll()
            if code is not None:
                raise ChildError(
                    f"the {name} ended unexpectedly with exit code {code}; see its messages above"
                )

    def kill(self) -> None:
        """Send SIGKILL to all children."""
        for child in self._running.values():
            child.kill()

    def end(self, *names: str) -> dict[str, int]:
        """End the named children, or all, and return their exit codes."""
        chosen = {name: self._running.pop(name) for name in (names or tuple(self._running))}
        for number, patience in PATIENCE_S.items():
            for child in chosen.values():
                if child.poll() is None:
                    child.send_signal(number)
            deadline = time.monotonic() + patience
            while any(child.poll() is None for child in chosen.values()) and time.monotonic() < deadline:
                time.sleep(0.01)
        return {name: child.wait() for name, child in chosen.items()}

    def close(self) -> None:
        """End all children; a second Ctrl-C meanwhile does not leave one behind."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.end()
        finally:
            signal.signal(signal.SIGINT, before)


def _die_with_parent() -> Callable[[], None]:
    """Return what a child has to run first so that it gets SIGTERM when its parent is gone (Linux).

    SIGINT is held back until the child is ready for it: while Python starts, it would end in a traceback.
    """
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: little is safe after it

    def run() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))

    return run


def process_usage(process_id: int) -> tuple[float, int]:
    """Return (CPU seconds used so far, resident bytes) of a process, from /proc."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")
