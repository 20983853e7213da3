"""Output of any kind becomes lines; the end of a program is explained."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.agent import execute
from clary.agent.execute import Execution, LineReader
from clary.agent.explain import explain_traceback, failure_reason
from clary.agent.runtimes.process import Ending


def lines_of(*pieces: bytes) -> list[str]:
    lines: list[str] = []
    reader = LineReader(lines.append)
    for piece in pieces:
        reader.feed(piece)
    reader.end()
    return lines


def test_lines_are_cut_wherever_the_pieces_end() -> None:
    assert lines_of(b"on", b"e\ntw", b"o\r", b"\nthr\xc3", b"\xa9e\n\n", b"rest") == [
        "one",
        "two",
        "thrée",
        "",
        "rest",
    ]


@given(st.lists(st.text("ab é\n", max_size=9).map(str.encode), max_size=9), st.integers(1, 5))
def test_how_output_is_cut_into_pieces_does_not_matter(texts: list[bytes], size: int) -> None:
    whole = b"".join(texts)
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
    assert lines_of(*pieces) == lines_of(whole)
    assert lines_of(whole) == whole.decode().split("\n")[: None if whole[-1:] not in (b"\n", b"") else -1]


def test_a_progress_bar_shows_its_last_state() -> None:
    bar = b"".join(b"\r%d%%" % i for i in range(101))
    lines = lines_of(b"start\n", bar, b"\nend\n")
    assert lines[0] == "start"
    assert lines[-2:] == ["100%", "end"]
    assert len(lines) < 10


def test_bytes_that_are_no_utf8_are_shown_replaced() -> None:
    assert lines_of(b"\xff\xfe ok\n") == ["\ufffd\ufffd ok"]


def test_a_line_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "LONGEST_LINE_BYTES", 10)
    assert lines_of(b"x" * 25, b"\n") == ["x" * 10, "x" * 10, "x" * 5]


def ended(ending: Ending, *tail: str, out_of_memory: bool = False) -> Execution:
    return Execution(ending, None, out_of_memory, tail)


TRACEBACK = (
    "starting",
    "Traceback (most recent call last):",
    '  File "/opt/ml/code/train.py", line 12, in <module>',
    "    load()",
    '  File "/usr/lib/python3/pandas/io.py", line 99, in load',
    "    raise KeyError(name)",
    "KeyError: 'price'",
)


def test_a_traceback_is_told_by_its_cause_and_the_callers_own_line() -> None:
    assert explain_traceback(TRACEBACK) == "KeyError: 'price' (/opt/ml/code/train.py:12)"
    assert explain_traceback(["no traceback"]) == ""


def test_a_scripts_exception_is_found_behind_what_its_launchers_say() -> None:
    of_the_sdk = [
        "Traceback (most recent call last):",
        'File "/opt/ml/input/data/code/train.py", line 4, in <module>',
        "f()",
        "^^^",
        'File "/opt/ml/input/data/code/train.py", line 2, in f',
        'raise ValueError("row 7 is bad")',
        "ValueError: row 7 is bad",
        "Command failed with exit code 1. Traceback: Traceback (most recent call last):",
        '  File "/opt/ml/input/data/sm_drivers/common/utils.py", line 193, in execute_commands',
        "    raise subprocess.CalledProcessError(exitcode, commands)",
        "subprocess.CalledProcessError: Command '['python3', 'train.py']' returned non-zero exit status 1.",
    ]
    assert explain_traceback(of_the_sdk) == "ValueError: row 7 is bad (/opt/ml/input/data/code/train.py:2)"
    of_torchrun = [
        "[rank1]: Traceback (most recent call last):",
        '[rank1]:   File "/opt/ml/input/data/code/train.py", line 6, in <module>',
        '[rank1]:     raise KeyError("price")',
        "[rank1]: KeyError: 'price'",
        "Traceback (most recent call last):",
        'File "/tmp/python/bin/torchrun", line 4, in <module>',
        "sys.exit(main())",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
        "====",
    ]
    assert explain_traceback(of_torchrun) == "KeyError: 'price' (/opt/ml/input/data/code/train.py:6)"
    assert explain_traceback(of_torchrun[4:]).startswith("torch.distributed.elastic")


def test_what_pip_said_explains_a_launcher_that_could_not_install(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output/failure").write_text("Training Execution failed. For more details, see ...")
    said = [
        "ERROR: Could not find a version that satisfies the requirement nosuch==1",
        "ERROR: No matching distribution found for nosuch==1",
        "Traceback (most recent call last):",
        '  File "/opt/ml/input/data/sm_drivers/scripts/install_requirements.py", line 191, in main',
        "    subprocess.check_call(pip_cmd)",
        "subprocess.CalledProcessError: Command '['python3', '-m', 'pip', 'install', '-r', 'r']' returned "
        "non-zero exit status 1.",
    ]
    assert failure_reason(tmp_path, ended(Ending(exit_code=1), *said)) == (
        "ClientError: packages could not be installed: Could not find a version that satisfies the "
        "requirement nosuch==1 No matching distribution found for nosuch==1, exit code: 1"
    )


def test_a_failure_file_of_a_launcher_gives_way_to_the_scripts_exception(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    written = "Traceback ...\nsubprocess.CalledProcessError: Command '['python3', 'train.py']' returned 1."
    (tmp_path / "output/failure").write_text(written)
    reason = failure_reason(tmp_path, ended(Ending(exit_code=1), *TRACEBACK))
    assert reason == "AlgorithmError: KeyError: 'price' (/opt/ml/code/train.py:12), exit code: 1"
    assert "CalledProcessError" in failure_reason(tmp_path, ended(Ending(exit_code=1)))


def test_a_failure_file_wins_over_the_log(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    assert failure_reason(tmp_path, ended(Ending(exit_code=3), *TRACEBACK)) == (
        "AlgorithmError: KeyError: 'price' (/opt/ml/code/train.py:12), exit code: 3"
    )
    (tmp_path / "output/failure").write_text("ClientError: bad row 3")
    assert failure_reason(tmp_path, ended(Ending(exit_code=3))) == "ClientError: bad row 3, exit code: 3"
    (tmp_path / "output/failure").write_text("x" * 5000)
    reason = failure_reason(tmp_path, ended(Ending(exit_code=3)))
    assert len(reason) <= 1024
    assert reason.endswith(", exit code: 3")


def test_a_failure_file_that_is_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "output").mkdir()
    (tmp_path / "output/failure").symlink_to(tmp_path / "secret")
    assert "secret" not in failure_reason(tmp_path, ended(Ending(exit_code=1)))


def test_a_kill_for_want_of_memory_says_so(tmp_path: Path) -> None:
    killed = ended(Ending(signal=signal.SIGKILL), "loading", out_of_memory=True)
    assert "killed by SIGKILL, probably out of memory" in failure_reason(tmp_path, killed)
    crashed = ended(Ending(signal=signal.SIGSEGV), "loading", out_of_memory=True)
    assert failure_reason(tmp_path, crashed).endswith("killed by SIGSEGV")
