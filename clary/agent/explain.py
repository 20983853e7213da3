"""Why an algorithm failed, in words fit for a FailureReason: the cause first, where it was, the exit code."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Sequence
from pathlib import Path

from clary.agent.execute import Execution
from clary.agent.failure import LONGEST_REASON

_FAILURE_BYTES = 8192
_PREFIXES = ("AlgorithmError", "ClientError", "InternalServerError")
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
_FIRST_TRACEBACK_LINE = "Traceback (most recent call last):"
_RANK = re.compile(r"^\[rank\d+\]: ?")  # PyTorch's, before each line of a traceback
_EXCEPTION = re.compile(r"^[\w.]+(Error|Exception|Exit|Interrupt|Warning|Failure|Failed)\b")
# What launchers say of the processes they started: that these failed, and not why.
_LAUNCHERS = (
    "subprocess.CalledProcessError: Command", "torch.distributed.elastic.multiprocessing.errors.ChildFailed",
)  # fmt: skip
_PIP_ERROR = "ERROR:"
_SDK_FAILED = "Command failed with exit code "  # the SDK's driver, after the output of the script
_NOTHING_SAID = "Training Execution failed."  # the SDK's driver, into the failure file


def failure_reason(ml: Path, execution: Execution) -> str:
    """The reason of a run that ended badly: the algorithm's own word (``output/failure``), or a guess."""
    if execution.violation:
        return execution.violation.reason[:LONGEST_REASON]
    ending = execution.ending
    written = read_failure(ml)
    if ending.signal is not None:
        how = f"killed by {_signal_name(ending.signal)}"
        if execution.out_of_memory and ending.signal == signal.SIGKILL:
            how += ", probably out of memory"
    else:
        how = f"exit code: {ending.exit_code}"
    if any(word in written for word in (*_LAUNCHERS, _NOTHING_SAID)):
        written = explain_traceback(execution.tail) or written
        written = _pip_complaint(written, execution.tail) or written
    what = written or explain_traceback(execution.tail)
    if not what:
        said = next((line.strip() for line in reversed(execution.tail) if line.strip()), "")
        what = (
            f"the algorithm ended with the last line {said!r}"
            if said
            else "the algorithm ended without a word"
        )
    if execution.remark:
        what += f"; {execution.remark}"
    if not what.startswith(_PREFIXES):
        what = f"AlgorithmError: {what}"
    room = LONGEST_REASON - len(how) - 2
    if len(what) > room:
        what = what[: room - 3] + "..."
    return what if how in what else f"{what}, {how}"


def read_failure(ml: Path) -> str:
    """The first 1,024 characters of ``output/failure``, "" if there is none."""
    try:
        if (ml / "output").is_symlink():
            return ""
        descriptor = os.open(
            ml / "output/failure", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        text = file.read(_FAILURE_BYTES).decode("utf-8", errors="replace")
    return text[:LONGEST_REASON].strip()


def explain_traceback(lines: Sequence[str]) -> str:
    """``ValueError: too few (/opt/ml/code/train.py:12)`` from the last traceback in ``lines``, or "".

    What a launcher says of a process that it started counts only if nothing else is there.
    """
    lines = [_RANK.sub("", line) for line in lines]
    starts = [place for place, line in enumerate(lines) if line.startswith(_FIRST_TRACEBACK_LINE)]
    found = [_explain(lines, start) for start in reversed(starts)]
    return next(
        (each for each in found if each and not each.startswith(_LAUNCHERS)), found[0] if found else ""
    )


def _explain(lines: Sequence[str], start: int) -> str:
    """The traceback that begins in line ``start``."""
    frames: list[tuple[str, str]] = []
    source_follows = False
    for index in range(start + 1, len(lines)):
        line = lines[index]
        frame = _FRAME.match(line)
        if frame:
            frames.append((frame["file"], frame["line"]))
            source_follows = not line.startswith(" ")  # where a launcher took the indentation away
        elif source_follows and not _EXCEPTION.match(line):
            source_follows = bool(line.strip("^~ ")) and _marks_follow(lines, index)
        elif line and not line.startswith(" "):
            message = line.strip()
            for further in lines[index + 1 : index + 4]:  # messages of several lines
                if not further.strip() or further.startswith((_FIRST_TRACEBACK_LINE, _SDK_FAILED)):
                    break
                message += " " + further.strip()
            own = [frame for frame in frames if "/code/" in frame[0]] or frames
            return f"{message} ({own[-1][0]}:{own[-1][1]})" if own else message
    return ""


def _marks_follow(lines: Sequence[str], index: int) -> bool:
    """Whether the next line only marks a part of this one (``^^^^``)."""
    following = lines[index + 1] if index + 1 < len(lines) else ""
    return bool(following) and not following.strip("^~ ")


def _pip_complaint(explained: str, lines: Sequence[str]) -> str:
    """What pip said, if all that is known is that a launcher's ``pip install`` failed; else ""."""
    errors = [line.removeprefix(_PIP_ERROR).strip() for line in lines if line.startswith(_PIP_ERROR)]
    if not errors or not explained.startswith(_LAUNCHERS) or "'pip', 'install'" not in explained:
        return ""
    return f"ClientError: packages could not be installed: {' '.join(errors[:3])}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
