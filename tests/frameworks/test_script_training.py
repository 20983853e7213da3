"""A user's script in training: where it runs, how it ends, what is told of its end."""

from __future__ import annotations

import io
import json
import re
import signal
import tarfile
from pathlib import Path
from typing import Any

import pytest

from clary.frameworks.framework import find_framework, get_framework, specs


def test_images_mean_their_frameworks_whatever_the_tag() -> None:
    assert find_framework("sagemaker-scikit-learn", "0.23-1-cpu-py3") is get_framework(
        "sagemaker-scikit-learn"
    )
    assert find_framework("sagemaker-xgboost", "9.9") is get_framework("sagemaker-xgboost")
    assert find_framework("sagemaker-scikit", "1") is None
    assert all(spec.packages and spec.title and spec.repositories for spec in specs())


def test_a_script_finds_itself_where_python_would_put_it(folder: Any) -> None:
    folder.script("VALUE = 7\n", "helper.py")
    folder.hyperparameters = {"epochs": 3, "n": 1, "name": "a b"}
    folder.script(
        """
        import json, os, sys
        import helper
        print("SEEN", json.dumps([__name__, __file__, sys.argv, sys.path[0], os.getcwd(), helper.VALUE]))
        assert sys.modules["__main__"].__dict__ is globals()
        """
    )
    code, out, err = folder.run()
    assert (code, err, folder.failure) == (0, "", "")
    source = str(folder.base / "code")
    arguments = ["train.py", "--epochs", "3", "-n", "1", "--name", "a b"]
    [seen] = re.findall(r"^SEEN (.+)$", out, re.M)
    assert json.loads(seen) == ["__main__", f"{source}/train.py", arguments, source, source, 7]
    assert "Framework sagemaker-scikit-learn 1.2-1 asked; running scikit-learn " in out
    assert "python train.py --epochs 3 -n 1 --name 'a b'" in out
    assert (folder.base / "output/success").exists()


def test_a_script_in_a_folder_sees_its_neighbours_and_the_source(folder: Any) -> None:
    folder.script("from top import NAME\n", "deep/near.py")
    folder.script("NAME = 'top'\n", "top.py")
    folder.script("import near\nprint('FOUND', near.NAME)\n", "deep/train.py")
    code, out, _ = folder.run("deep/train.py")
    assert code == 0 and "FOUND top" in out


def test_a_scikit_learn_script_trains_and_saves_its_model(folder: Any) -> None:
    folder.hyperparameters = {"trees": 5}
    folder.script(
        """
        import argparse, os
        import joblib
        from sklearn.datasets import load_breast_cancer
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.model_selection import train_test_split

        class Kept:
            def __init__(self, model): self.model = model

        if __name__ == "__main__":
            parser = argparse.ArgumentParser()
            parser.add_argument("--trees", type=int)
            parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
            options = parser.parse_args()
            X, Xt, y, yt = train_test_split(*load_breast_cancer(return_X_y=True), random_state=0)
            model = RandomForestClassifier(options.trees, random_state=0, n_jobs=2).fit(X, y)
            print("accuracy:", model.score(Xt, yt))
            joblib.dump(Kept(model), os.path.join(options.model_dir, "model.joblib"))
        """
    )
    code, out, err = folder.run()
    assert code == 0, err
    assert float(re.findall(r"accuracy: (\S+)", out)[0]) > 0.9
    assert (folder.base / "model/model.joblib").stat().st_size > 1000


def test_what_a_script_leaves_for_the_end_still_runs(folder: Any) -> None:
    folder.script(
        """
        import atexit, threading, time
        WORD = "kept"
        atexit.register(lambda: print("AT EXIT", WORD))
        def late():
            time.sleep(0.2)
            print("THREAD", WORD)
        threading.Thread(target=late).start()
        """
    )
    code, out, _ = folder.run()
    assert code == 0
    assert out.index("THREAD kept") < out.index("AT EXIT kept")


def test_processes_of_a_script_find_its_functions(folder: Any) -> None:
    folder.script(
        """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        def double(n): return 2 * n
        if __name__ == "__main__":
            for way in ("fork", "spawn"):
                with ProcessPoolExecutor(1, multiprocessing.get_context(way)) as pool:
                    print("DOUBLED", way, list(pool.map(double, [1, 2])))
        """
    )
    code, out, err = folder.run()
    assert code == 0, err
    assert "DOUBLED fork [2, 4]" in out and "DOUBLED spawn [2, 4]" in out


def test_an_error_is_told_with_type_message_and_place(folder: Any) -> None:
    path = folder.script(
        """
        import numpy
        def check(rows):
            numpy.zeros(3).reshape(rows)
        check(2)
        """
    )
    folder.hyperparameters = {"lr": 0.1}
    code, _, err = folder.run()
    assert code == 1
    assert folder.failure == (
        "AlgorithmError: ExecuteUserScriptError:\nExitCode 1\n"
        f'ErrorMessage "ValueError: cannot reshape array of size 3 into shape (2,) ({path}:4)"\n'
        'Command "python train.py --lr 0.1"'
    )
    assert err.startswith(f'Traceback (most recent call last):\n  File "{path}", line 5, in <module>\n')
    assert err.rstrip().endswith("ValueError: cannot reshape array of size 3 into shape (2,)")
    assert not (folder.base / "output/success").exists()


def test_the_causes_of_an_error_are_printed_too(folder: Any) -> None:
    folder.script(
        """
        try:
            {}["a"]
        except KeyError as error:
            raise RuntimeError("no a") from error
        """
    )
    code, _, err = folder.run()
    assert code == 1 and "KeyError: 'a'" in err and "direct cause" in err
    assert "clary" not in err.replace(str(folder.base), "")
    assert 'ErrorMessage "RuntimeError: no a (' in folder.failure


def test_a_mistake_in_a_library_is_placed_in_the_users_code(folder: Any) -> None:
    folder.script("import json\n\ndef load():\n    return json.loads('{')\n", "reader.py")
    folder.script("import reader\nreader.load()\n")
    folder.run()
    assert f"({folder.base}/code/reader.py:4)" in folder.failure


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", "SyntaxError: invalid syntax ({path}:1)"),
        (
            "import nowhere\n",
            "ModuleNotFoundError: No module named 'nowhere' ({path}:1); name the package "
            "that has it in a requirements.txt beside the script",
        ),
        ("assert False\n", "AssertionError ({path}:1)"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt ({path}:1)"),
    ],
)
def test_every_kind_of_error_is_told(folder: Any, text: str, message: str) -> None:
    path = folder.script(text)
    code, _, err = folder.run()
    assert code == 1 and err
    assert f'ErrorMessage "{message.format(path=path)}"' in folder.failure


def test_a_long_message_leaves_room_for_the_rest(folder: Any) -> None:
    folder.hyperparameters = {"text": "x" * 5000}
    folder.script("raise ValueError('y' * 5000)\n")
    folder.run()
    assert len(folder.failure) <= 1024
    assert folder.failure.startswith("AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage")
    assert folder.failure.endswith('..."')


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(0)", 0, ""),
        ("import sys; sys.exit(False)", 0, ""),
        ("import sys; sys.exit(42)", 42, "the script ended with exit code 42"),
        ("import sys; sys.exit('no data')", 1, "the script ended with: no data"),
    ],
)
def test_exit_codes_are_respected(folder: Any, text: str, code: int, message: str) -> None:
    folder.script(text)
    assert folder.run()[0] == code
    assert (message in folder.failure) if message else (folder.failure == "")


def test_a_failure_that_the_script_wrote_itself_stays(folder: Any) -> None:
    folder.script(
        """
        import os
        with open(os.path.join(os.environ["SM_OUTPUT_DIR"], "failure"), "w") as file:
            file.write("my own words")
        raise SystemExit(3)
        """
    )
    assert folder.run()[0] == 3 and folder.failure == "my own words"


def test_a_scripts_own_hook_for_errors_is_called(folder: Any) -> None:
    folder.script("import sys\nsys.excepthook = lambda *a: print('HOOK', a[1])\nraise ValueError('seen')\n")
    code, out, err = folder.run()
    assert code == 1 and "HOOK seen" in out and "Traceback" not in err


def test_sigterm_reaches_the_script(folder: Any) -> None:
    folder.script(
        """
        import os, signal, sys, time
        def save(*_):
            open(os.path.join(os.environ["SM_MODEL_DIR"], "saved"), "w").close()
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print("READY", flush=True)
        time.sleep(60)
        """
    )
    process = folder.start()
    assert process.stdout is not None
    for line in process.stdout:
        if line == "READY\n":
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=30)
    assert process.returncode == 0 and (folder.base / "model/saved").exists()


def test_a_shell_script_gets_arguments_and_variables(folder: Any) -> None:
    folder.hyperparameters = {"name": "a b", "n": 2}
    folder.script('echo "GOT $*" in "$PWD" "$SM_HP_NAME"\necho $# > "$SM_MODEL_DIR/count"\n', "train.sh")
    code, out, _ = folder.run("train.sh")
    assert code == 0 and f"GOT -n 2 --name a b in {folder.base}/code a b" in out.replace("  ", " ")
    assert (folder.base / "model/count").read_text() == "4\n"


def test_a_shell_scripts_first_line_is_respected(folder: Any) -> None:
    folder.script("#!/bin/bash\na=(1 2 3); echo ${#a[@]} > $SM_MODEL_DIR/count\n", "bin/train.sh")
    assert folder.run("bin/train.sh")[0] == 0
    assert (folder.base / "model/count").read_text() == "3\n"


def test_a_failing_shell_script_is_told_with_its_code(folder: Any) -> None:
    folder.script("exit 5\n", "train.sh")
    assert folder.run("train.sh")[0] == 5
    assert 'ErrorMessage "train.sh ended with exit code 5"' in folder.failure
    assert 'Command "/bin/sh -c ./train.sh"' in folder.failure


def test_sigterm_reaches_a_shell_script_once(folder: Any) -> None:
    folder.script(
        """
        trap 'echo stopped >> $SM_MODEL_DIR/stops; exit 0' TERM
        echo READY
        while true; do sleep 0.05; done
        """,
        "train.sh",
    )
    process = folder.start("train.sh")
    assert process.stdout is not None
    for line in process.stdout:
        if line == "READY\n":
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=30)
    assert process.returncode == 0 and (folder.base / "model/stops").read_text() == "stopped\n"


def archive_of(files: dict[str, str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))


@pytest.mark.parametrize(
    ("place", "directory"),
    [
        ("code/sourcedir.tar.gz", "s3://bucket/job/source/sourcedir.tar.gz"),
        ("input/data/code/sourcedir.tar.gz", "/opt/ml/input/data/code/sourcedir.tar.gz"),
        ("input/data/code/sourcedir.tar.gz", ""),
        ("elsewhere/sourcedir.tar.gz", "file:///opt/ml/elsewhere"),
    ],
)
def test_an_archive_is_found_wherever_it_was_put(folder: Any, place: str, directory: str) -> None:
    archive_of({"train.py": "import other; print('RAN', other.X)", "other.py": "X = 1"}, folder.base / place)
    folder.hyperparameters = {"sagemaker_submit_directory": directory}
    code, out, err = folder.run()
    assert code == 0, err
    assert "RAN 1" in out


@pytest.mark.parametrize("directory", ["/opt/ml/input/data/code", "", "{base}/input/data/code"])
def test_a_folder_of_source_is_found(folder: Any, directory: str) -> None:
    source = folder.base / "input/data/code/sub"
    source.mkdir(parents=True)
    (source / "other.py").write_text("X = 2")
    (source.parent / "train.py").write_text("from sub.other import X; print('RAN', X)")
    folder.hyperparameters = {"sagemaker_submit_directory": directory.format(base=folder.base)}
    code, out, err = folder.run()
    assert code == 0, err
    assert "RAN 2" in out


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py", "a/../../outside.py"])
def test_an_archive_cannot_write_outside_of_the_source(folder: Any, name: str) -> None:
    archive_of({"train.py": "print('RAN')", name: "evil"}, folder.base / "code/sourcedir.tar.gz")
    folder.run()
    assert not list(folder.base.parent.rglob("outside.py")) or name.startswith("/")
    assert not Path("/outside.py").exists()


def test_a_broken_archive_is_told(folder: Any) -> None:
    (folder.base / "code/sourcedir.tar.gz").write_bytes(b"not an archive")
    assert folder.run()[0] == 1
    assert folder.failure.startswith("ClientError: sourcedir.tar.gz cannot be unpacked")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("other.py", "ClientError: the script other.py is not in the source; there is: train.py"),
        ("../../secret.py", "ClientError: the script ../../secret.py leads out of the source"),
        (None, "ClientError: the job names no script: the hyperparameter sagemaker_program is not set"),
    ],
)
def test_a_missing_script_is_told(folder: Any, program: str | None, words: str) -> None:
    folder.script("print('RAN')\n")
    code, out, err = folder.run(program)
    assert code == 1 and folder.failure == words and words in err and "RAN" not in out


def test_the_script_may_be_named_by_the_environment(folder: Any) -> None:
    folder.script("print('RAN')\n")
    assert "RAN" in folder.run(None, SAGEMAKER_PROGRAM="train.py")[1]


def test_a_broken_configuration_file_is_a_framework_error(folder: Any) -> None:
    folder.script("print('RAN')\n")
    (folder.base / "input/config/resourceconfig.json").write_text("{")
    code, out, _ = folder.run()
    assert code == 1 and "RAN" not in out
    assert folder.failure.startswith("AlgorithmError: Framework Error:\nTraceback")
    assert "resourceconfig.json is not JSON" in folder.failure


def test_a_module_of_a_package_runs_as_python_dash_m_would(folder: Any) -> None:
    folder.script("raise SystemExit('the agent installs it, before the script runs')\n", "setup.py")
    folder.script("NAME = 'neighbour'\n", "trainer/__init__.py")
    folder.script(
        "import sys\nfrom . import NAME\nprint('RAN', NAME, __name__, sys.argv[1:])\n", "trainer/main.py"
    )
    folder.hyperparameters = {"a": 1}
    code, out, err = folder.run("trainer.main")
    assert code == 0 and "RAN neighbour __main__ ['-a', '1']" in out, err
    assert "python -m trainer.main -a 1" in out


def test_the_failure_of_a_package_has_its_place(folder: Any) -> None:
    folder.script("[project]\nname = 'trainer'\n", "pyproject.toml")
    folder.script("", "trainer/__init__.py")
    folder.script("def main():\n    raise ValueError('too few')\n\nmain()\n", "trainer/__main__.py")
    code, _, err = folder.run("trainer")
    assert code == 1 and "ValueError: too few" in err
    assert f"ValueError: too few ({folder.base}/code/trainer/__main__.py:2)" in folder.failure


def test_a_pyproject_with_settings_of_tools_only_makes_no_package(folder: Any) -> None:
    folder.script("[tool.ruff]\nline-length = 100\n", "pyproject.toml")
    code, _, err = folder.run("trainer")
    assert code == 1 and "the script trainer is not in the source" in err
