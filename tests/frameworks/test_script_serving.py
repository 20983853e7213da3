"""A user's functions in serving: found, called, and what is answered."""

from __future__ import annotations

import io
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy
import pytest
import xgboost
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from clary.frameworks.entrypoint import Predictor, load_predictor
from clary.frameworks.inference import NoModelFunction, ScriptPredictor, UnusableScript

SKLEARN, XGBOOST = "sagemaker-scikit-learn", "sagemaker-xgboost"
CSV, JSON, NPY, NPZ = "text/csv", "application/json", "application/x-npy", "application/x-npz"
X, Y = load_iris(return_X_y=True)
SUM_MODEL = """
    class Sum:
        def predict(self, rows):
            return rows.sum(axis=1)
    def model_fn(model_dir):
        return Sum()
"""


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Predictor]]:
    """A predictor of the given script, which lies in the model's code folder."""
    path, modules = list(sys.path), set(sys.modules)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "ml"))

    def make(script: str, framework: str = SKLEARN, name: str = "inference.py", **settings: str) -> Predictor:
        file = tmp_path / "model/code" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(script))
        for variable, value in settings.items():
            monkeypatch.setenv(variable, value)
        return load_predictor(framework, tmp_path / "model")

    yield make
    sys.path[:] = path
    for added in set(sys.modules) - modules:
        if getattr(sys.modules[added], "__file__", None) and str(tmp_path) in str(
            sys.modules[added].__file__
        ):
            del sys.modules[added]


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    numpy.save(buffer, array)
    return buffer.getvalue()


def test_a_scikit_learn_model_answers_with_the_defaults(
    serve: Callable[..., Predictor], tmp_path: Path
) -> None:
    model = LogisticRegression(max_iter=500).fit(X, Y)
    (tmp_path / "model").mkdir()
    joblib.dump(model, tmp_path / "model/model.joblib")
    answer = serve(
        """
        import os, joblib
        def model_fn(model_dir):
            return joblib.load(os.path.join(model_dir, "model.joblib"))
        """
    )
    wanted = model.predict(X[48:53].astype(numpy.float32)).tolist()
    text = "\n".join(",".join(map(str, row)) for row in X[48:53]).encode()
    assert answer(text, CSV, JSON) == (200, json.dumps(wanted).encode(), JSON)
    assert answer(json.dumps(X[48:53].tolist()).encode(), JSON, "") == (
        200,
        json.dumps(wanted).encode(),
        JSON,
    )
    status, body, media = answer(npy(X[48:53]), NPY, NPY)
    assert (status, media) == (200, NPY) and numpy.load(io.BytesIO(body)).tolist() == wanted
    assert answer(text, "text/csv; charset=utf-8", CSV) == (
        200,
        "".join(f"{w}\n" for w in wanted).encode(),
        CSV,
    )
    assert answer(text.splitlines()[0], CSV, JSON)[1] == json.dumps(wanted[:1]).encode()


def test_the_first_reply_type_of_a_list_that_can_be_written_is(serve: Callable[..., Predictor]) -> None:
    answer = serve(SUM_MODEL)
    assert answer(b"1,2\n3,4", CSV, "image/png, text/csv")[1:] == (b"3.0\n7.0\n", CSV)
    assert answer(b"1,2\n3,4", CSV, "*/*")[1:] == (b"[3.0, 7.0]", JSON)


def test_the_default_reply_type_can_be_chosen(serve: Callable[..., Predictor]) -> None:
    answer = serve(SUM_MODEL, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT=CSV)
    for accept in ("", "*/*"):
        assert answer(b"1,2", CSV, accept) == (200, b"3.0\n", CSV)


def test_a_sparse_matrix_reaches_the_model(serve: Callable[..., Predictor]) -> None:
    buffer = io.BytesIO()
    sparse.save_npz(buffer, sparse.csr_matrix(numpy.eye(3)))
    answer = serve(
        """
        def model_fn(model_dir): return "model"
        def predict_fn(data, model): return [data.shape, data.nnz, model]
        """
    )
    assert json.loads(answer(buffer.getvalue(), NPZ, JSON)[1]) == [[3, 3], 3, "model"]


def test_an_xgboost_model_answers_with_the_defaults(serve: Callable[..., Predictor], tmp_path: Path) -> None:
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(X, Y > 1), 5)
    (tmp_path / "model").mkdir()
    booster.save_model(tmp_path / "model/xgboost-model.ubj")
    answer = serve(
        """
        import os, xgboost
        def model_fn(model_dir):
            return xgboost.Booster(model_file=os.path.join(model_dir, "xgboost-model.ubj"))
        """,
        XGBOOST,
    )
    wanted = booster.predict(xgboost.DMatrix(X[98:102])).tolist()
    text = "\n".join(",".join(map(str, row)) for row in X[98:102]).encode()
    assert json.loads(answer(text, CSV, JSON)[1]) == wanted
    assert json.loads(answer(text.splitlines()[0], CSV, JSON)[1]) == wanted[:1]
    lines = [" ".join(f"{i}:{v}" for i, v in enumerate(row)) for row in X[98:102]]
    assert json.loads(answer("\n".join(lines).encode(), "text/libsvm", JSON)[1]) == wanted
    labelled = "\n".join("1 " + line for line in lines).encode()
    assert json.loads(answer(labelled, "text/x-libsvm", JSON)[1]) == wanted
    assert answer(b"1 2 3", "text/libsvm", JSON)[0] == 400
    assert answer(b"a,b", CSV, JSON)[0] == 400
    status, words, _ = answer(b"{}", JSON, JSON)
    assert status == 415 and b"not supported without an input_fn in the script" in words


def test_missing_values_of_a_csv_row_stay_missing(serve: Callable[..., Predictor]) -> None:
    answer = serve(
        """
        def model_fn(model_dir): return None
        def predict_fn(data, model): return data.get_data().nnz
        """,
        XGBOOST,
    )
    assert answer(b"1,,3\n,,6", CSV, JSON)[1] == b"3"


def test_the_scripts_own_functions_are_called(serve: Callable[..., Predictor]) -> None:
    answer = serve(
        """
        def model_fn(model_dir): return 10
        def input_fn(body, content_type):
            assert isinstance(body, str if content_type == "text/csv" else bytes)
            return body, content_type
        def predict_fn(data, model): return [*map(str, data), model]
        def output_fn(prediction, accept): return f"{prediction} as {accept}", "text/mine"
        """
    )
    assert answer(b"1,2", CSV, CSV) == (200, b"['1,2', 'text/csv', 10] as text/csv", "text/mine")
    assert answer(b"x", "text/other", CSV) == (200, b"[\"b'x'\", 'text/other', 10] as text/csv", "text/mine")


def test_a_transform_function_does_it_all(serve: Callable[..., Predictor]) -> None:
    answer = serve(
        """
        def model_fn(model_dir): return 10
        def transform_fn(model, body, content_type, accept): return f"{model} {body} {content_type} {accept}"
        """
    )
    assert answer(b"1,2", CSV, CSV) == (200, b"10 1,2 text/csv text/csv", CSV)


def test_functions_may_take_a_context(serve: Callable[..., Predictor], tmp_path: Path) -> None:
    answer = serve(
        """
        def model_fn(model_dir, context): return context.system_properties["model_dir"] == model_dir
        def input_fn(body, content_type, context): return context.request_content_type
        def predict_fn(data, model, context=None): return [data, model, context is not None]
        def output_fn(prediction, accept, context): return repr([*prediction, context.accept_header])
        """
    )
    assert answer(b"1", CSV, JSON)[1] == b"['text/csv', True, True, 'application/json']"


def test_an_optional_argument_that_is_no_context_is_left_alone(serve: Callable[..., Predictor]) -> None:
    answer = serve(
        """
        def model_fn(model_dir, name="best"): return name
        def predict_fn(data, model): return model
        """
    )
    assert answer(b"1", CSV, JSON)[1] == b'"best"'


def test_the_hooks_around_loading_are_called_in_order(serve: Callable[..., Predictor]) -> None:
    answer = serve(
        """
        seen = []
        def pre_model_fn(model_dir): seen.append("before")
        def model_fn(model_dir): seen.append("load"); return seen
        def model_warmup_fn(model_dir, model): model.append("after")
        def predict_fn(data, model): return model
        """
    )
    assert json.loads(answer(b"1", CSV, JSON)[1]) == ["before", "load", "after"]


def test_execution_parameters_are_the_scripts(serve: Callable[..., Predictor]) -> None:
    own = serve(SUM_MODEL + "    def execution_parameters_fn(): return {'MaxConcurrentTransforms': 2}\n")
    assert isinstance(own, ScriptPredictor)
    assert own.execution_parameters() == {"MaxConcurrentTransforms": 2}
    none = serve(SUM_MODEL)
    assert isinstance(none, ScriptPredictor) and none.execution_parameters() is None


def test_an_error_is_a_500_with_message_and_traceback(
    serve: Callable[..., Predictor], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = serve(
        """
        def model_fn(model_dir): return None
        def predict_fn(data, model): raise ValueError("too few")
        """
    )
    status, body, _ = answer(b"1,2", CSV, JSON)
    assert status == 500
    assert body.startswith(b"too few\nTraceback") and b"inference.py" in body
    assert "ValueError: too few" in capsys.readouterr().err


def test_an_error_may_carry_its_own_status(serve: Callable[..., Predictor]) -> None:
    answer = serve(
        """
        class TooMany(Exception):
            status_code = 429
        def model_fn(model_dir): return None
        def predict_fn(data, model): raise TooMany("slow down")
        """
    )
    assert answer(b"1,2", CSV, JSON)[0] == 429


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status"),
    [
        (b"1,2", "image/png", JSON, 415),
        (b"1,2", CSV, "image/png", 406),
        (b"{", JSON, JSON, 400),
        (b"[[1], [2, 3]]", JSON, JSON, 400),
        (b"1,2\n3", CSV, JSON, 400),
        (b"a,b", CSV, JSON, 400),
        (b"", CSV, JSON, 400),
        (b"\xff\xfe", CSV, JSON, 400),
        (b"junk", NPY, JSON, 400),
        (b"junk", NPZ, JSON, 400),
    ],
)
def test_what_the_defaults_cannot_read_or_write_is_refused(
    serve: Callable[..., Predictor], body: bytes, content_type: str, accept: str, status: int
) -> None:
    assert serve(SUM_MODEL)(body, content_type, accept)[0] == status


def test_pickled_arrays_are_not_opened(serve: Callable[..., Predictor]) -> None:
    assert serve(SUM_MODEL)(npy(numpy.array([print], dtype=object)), NPY, JSON)[0] == 400


def test_a_script_without_a_way_to_load_the_model_is_refused(serve: Callable[..., Predictor]) -> None:
    with pytest.raises(NoModelFunction, match=r"inference\.py defines no model_fn\(model_dir\)"):
        serve("def predict_fn(data, model): return data\n")


def test_functions_that_exclude_each_other_are_refused(serve: Callable[..., Predictor]) -> None:
    with pytest.raises(UnusableScript, match="Cannot use transform_fn implementation in conjunction"):
        serve(SUM_MODEL + "    def transform_fn(m, b, c, a): ...\n    def input_fn(b, c): ...\n")


@pytest.mark.parametrize("signature", ["()", "(a, b, c)"])
def test_a_function_with_too_many_or_too_few_arguments_is_refused(
    serve: Callable[..., Predictor], signature: str
) -> None:
    with pytest.raises(UnusableScript, match=r"model_fn takes \d arguments but 1 were given"):
        serve(f"def model_fn{signature}: ...\n")


def test_what_loading_raises_comes_through_with_its_place(
    serve: Callable[..., Predictor], tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        serve("def model_fn(model_dir):\n    return 1 / 0\n")
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(tmp_path / "model/code/inference.py"), 2)


def test_the_script_is_looked_for_where_the_environment_says(
    serve: Callable[..., Predictor], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "ml/elsewhere"
    elsewhere.mkdir(parents=True)
    (elsewhere / "other.py").write_text("WORD = 'there'\n")
    (elsewhere / "mine.py").write_text(
        "import other\ndef model_fn(folder): return other.WORD\ndef predict_fn(data, model): return model\n"
    )
    answer = serve("", SAGEMAKER_PROGRAM="mine.py", SAGEMAKER_SUBMIT_DIRECTORY="/opt/ml/elsewhere")
    assert answer(b"1", CSV, JSON)[1] == b'"there"'
    with pytest.raises(UnusableScript, match=r"The script none\.py \(SAGEMAKER_PROGRAM\) is in none of"):
        serve("", SAGEMAKER_PROGRAM="none.py")


def test_the_source_that_the_agent_brought_is_found(serve: Callable[..., Predictor], tmp_path: Path) -> None:
    code = tmp_path / "ml/code/deep"
    code.mkdir(parents=True)
    (code / "serve.py").write_text("def model_fn(d): return 5\ndef predict_fn(data, model): return model\n")
    answer = serve(
        "", SAGEMAKER_PROGRAM="deep/serve.py", SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/sourcedir.tar.gz"
    )
    assert answer(b"1", CSV, JSON)[1] == b"5"


@pytest.mark.parametrize(
    ("returned", "reply"),
    [
        ("b'raw'", (b"raw", JSON)),
        ("'text'", (b"text", JSON)),
        ("({'a': numpy.float32(0.5)}, 'application/json')", (b'{"a": 0.5}', JSON)),
        ("numpy.arange(3)", (b"[0, 1, 2]", JSON)),
        ("[numpy.int64(1), (2.5, None)]", (b"[1, [2.5, null]]", JSON)),
    ],
)
def test_whatever_an_output_function_returns_becomes_a_body(
    serve: Callable[..., Predictor], returned: str, reply: tuple[bytes, str]
) -> None:
    answer = serve(
        f"""
        import numpy
        def model_fn(model_dir): return None
        def predict_fn(data, model): return data
        def output_fn(prediction, accept): return {returned}
        """
    )
    assert answer(b"1", CSV, JSON)[1:] == reply
