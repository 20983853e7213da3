"""Answering requests with XGBoost models, as AWS's container answers them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import xgboost

from clary.algorithms.entrypoint import Predictor, execution_parameters, load_predictor
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.recordio import Tensor, read_rows, write_frame, write_record

CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"
RECORDIO = "application/x-recordio-protobuf"
FEATURES = numpy.random.default_rng(3).normal(size=(200, 4)).astype(numpy.float32)
CLASSES = numpy.digitize(FEATURES[:, 0] + FEATURES[:, 1], [-0.5, 0.5]).astype(numpy.float32)


def booster(objective: str = "binary:logistic", seed: int = 0, **options: Any) -> Any:
    labels = CLASSES if objective.startswith("multi:") else (CLASSES > 1).astype(numpy.float32)
    if objective.startswith("multi:"):
        options["num_class"] = 3
    data = xgboost.DMatrix(FEATURES, labels)
    settings = {"objective": objective, "nthread": 1, "seed": seed, "subsample": 0.8, **options}
    return xgboost.train(settings, data, 6)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Predictor]:
    """A predictor of the given models, in the given environment."""

    def serve(*models: Any, **environment: str) -> Predictor:
        for number, model in enumerate(models):
            name = "xgboost-model" if len(models) == 1 else f"xgboost-model-{number}"
            (tmp_path / name).write_bytes(model if isinstance(model, bytes) else model.save_raw("ubj"))
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        return load_predictor("xgboost", tmp_path)

    return serve


def csv_of(rows: Any) -> bytes:
    return "\n".join(",".join("" if numpy.isnan(v) else f"{v:.9g}" for v in row) for row in rows).encode()


def wanted(model: Any, rows: Any) -> Any:
    return model.predict(xgboost.DMatrix(rows))


def test_the_answer_is_the_librarys_to_the_last_bit(served: Callable[..., Predictor]) -> None:
    model = booster()
    rows = FEATURES[:5].copy()
    rows[2, 1] = numpy.nan
    status, body, media = served(model)(csv_of(rows), CSV, CSV)
    assert (status, media) == (200, CSV)
    assert body.decode() == ",".join(str(value) for value in wanted(model, rows).tolist())


def test_one_row_gives_one_number(served: Callable[..., Predictor]) -> None:
    model = booster()
    for body in (csv_of(FEATURES[:1]), csv_of(FEATURES[:1]) + b"\n"):
        status, reply, _ = served(model)(body, "text/csv; charset=utf-8", "")
        assert status == 200 and float(reply) == wanted(model, FEATURES[:1])[0]


def test_every_reply_format_carries_the_same_scores(served: Callable[..., Predictor]) -> None:
    model = booster()
    answer, rows = served(model), FEATURES[:3]
    scores = wanted(model, rows).tolist()
    status, body, media = answer(csv_of(rows), CSV, JSON)
    assert (status, media) == (200, JSON)
    assert json.loads(body) == {"predictions": [{"score": score} for score in scores]}
    status, body, media = answer(csv_of(rows), CSV, LINES)
    assert (status, media) == (200, LINES)
    assert [json.loads(line) for line in body.splitlines()] == [{"score": score} for score in scores]
    status, body, media = answer(csv_of(rows), CSV, RECORDIO)
    assert (status, media) == (200, RECORDIO)
    assert [record.label["score"].values.tolist() for record in read_rows(body, "x")] == [[s] for s in scores]


def test_every_request_format_asks_the_same(served: Callable[..., Predictor]) -> None:
    answer, rows = served(booster()), FEATURES[:3]
    requests = {
        CSV: csv_of(rows),
        "text/libsvm": "\n".join(" ".join(f"{i}:{v:.9g}" for i, v in enumerate(r)) for r in rows).encode(),
        "text/x-libsvm": "\n".join(
            "1 " + " ".join(f"{i}:{v:.9g}" for i, v in enumerate(row)) for row in rows
        ).encode(),
        RECORDIO: b"".join(write_frame(write_record({"values": Tensor(row)}, {})) for row in rows),
    }
    replies = {content_type: answer(body, content_type, CSV) for content_type, body in requests.items()}
    assert len(set(replies.values())) == 1 and replies[CSV][0] == 200
    tabs = requests[CSV].replace(b",", b"\t")
    assert answer(tabs, CSV, CSV) == replies[CSV]


def test_sparse_rows_leave_features_out(served: Callable[..., Predictor]) -> None:
    model = booster()
    rows = FEATURES[:2].copy()
    rows[0, 1:] = rows[1, 3] = numpy.nan
    answer = served(model)
    libsvm = "\n".join(
        " ".join(f"{i}:{v:.9g}" for i, v in enumerate(row) if not numpy.isnan(v)) for row in rows
    )
    one_based = "\n".join(
        " ".join(f"{i + 1}:{v:.9g}" for i, v in enumerate(row) if not numpy.isnan(v))
        for row in (FEATURES[0], rows[1])
    )
    keys = [numpy.flatnonzero(~numpy.isnan(row)) for row in rows]
    recordio = b"".join(
        write_frame(write_record({"values": Tensor(row[key], key, (4,))}, {}))
        for row, key in zip(rows, keys, strict=True)
    )
    expected = ",".join(str(value) for value in wanted(model, rows).tolist()).encode()
    assert answer(libsvm.encode(), "text/libsvm", CSV)[1] == expected
    assert answer(recordio, RECORDIO, CSV)[1] == expected
    shifted = answer(one_based.encode(), "text/libsvm", CSV)[1].split(b",")
    assert shifted[0].decode() == str(wanted(model, FEATURES[:1]).tolist()[0])
    assert shifted[1] == expected.split(b",")[1]


def test_a_batch_transform_gets_a_line_for_each_row(served: Callable[..., Predictor]) -> None:
    model = booster()
    body = served(model, SAGEMAKER_BATCH="true")(csv_of(FEATURES[:3]), CSV, CSV)[1]
    assert body.decode() == "".join(f"{value}\n" for value in wanted(model, FEATURES[:3]).tolist())


def test_probabilities_of_several_classes_are_lists(served: Callable[..., Predictor]) -> None:
    model = booster("multi:softprob")
    answer, shares = served(model), wanted(model, FEATURES[:2]).tolist()
    assert answer(csv_of(FEATURES[:2]), CSV, CSV)[1].decode() == ",".join(map(str, shares))
    found = json.loads(answer(csv_of(FEATURES[:2]), CSV, JSON)[1])
    assert [row["score"] for row in found["predictions"]] == shares


@pytest.mark.parametrize(
    ("objective", "keys", "row"),
    [
        ("binary:logistic", "predicted_label,labels,probability,probabilities,raw_score", None),
        ("multi:softprob", "predicted_label,labels,probability,probabilities,raw_scores", None),
        ("binary:logitraw", "predicted_label,raw_score", None),
        ("multi:softmax", "predicted_label,labels", None),
        ("binary:hinge", "predicted_label,labels", None),
        ("reg:squarederror", "predicted_score", None),
    ],
)
def test_selected_outputs_agree_with_the_plain_ones(
    served: Callable[..., Predictor], objective: str, keys: str, row: None
) -> None:
    model = booster(objective)
    answer = served(model, SAGEMAKER_INFERENCE_OUTPUT=keys)
    plain = wanted(model, FEATURES[:4])
    found = json.loads(answer(csv_of(FEATURES[:4]), CSV, JSON)[1])["predictions"]
    for prediction, selected in zip(plain.tolist(), found, strict=True):
        assert list(selected) == keys.split(",")
        value = max(prediction) if isinstance(prediction, list) else prediction
        label = {
            "binary:logistic": lambda p: int(p > 0.5),
            "binary:logitraw": lambda p: int(p > 0),
            "multi:softprob": lambda p: p.index(max(p)),
        }.get(objective, lambda p: p)(prediction)
        shares = prediction if isinstance(prediction, list) else [1 - prediction, prediction]
        known = {
            "predicted_label": label,
            "labels": [0, 1, 2] if objective.startswith("multi:") else [0, 1],
            "probability": value,
            "probabilities": shares,
            "raw_score": value,
            "raw_scores": shares,
            "predicted_score": prediction,
        }
        assert selected == {key: known[key] for key in keys.split(",")}


def test_selected_outputs_as_csv_keep_their_order_and_quote_lists(served: Callable[..., Predictor]) -> None:
    model = booster()
    answer = served(model, SAGEMAKER_INFERENCE_OUTPUT=" probabilities, predicted_label,predicted_score")
    share = wanted(model, FEATURES[:1]).tolist()[0]
    line = f'"{[1 - share, share]}",{int(share > 0.5)},nan'
    assert answer(csv_of(FEATURES[:1]), CSV, CSV)[1].decode() == line
    [record] = read_rows(answer(csv_of(FEATURES[:1]), CSV, RECORDIO)[1], "x")
    assert record.label["probabilities"].values.tolist() == pytest.approx([1 - share, share])


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status", "words"),
    [
        (b"", CSV, CSV, 204, ""),
        (b"1,2,3,x", CSV, CSV, 415, "payload, line 1, column 4: 'x' is not a number"),
        (b"\n\n", CSV, CSV, 415, "the file holds no rows"),
        (b"1,2,3,4", "image/png", CSV, 415, "Content-type image/png not supported"),
        (b"junk", RECORDIO, CSV, 415, "the file ends within the record"),
        (b"1:x", "text/libsvm", CSV, 415, "'1:x' is not index:value"),
        (b"1,2,3", CSV, CSV, 400, "inference data 3 is not consistent with feature size of trained model 4"),
        (b"0:1 9:1", "text/libsvm", CSV, 400, "inference data 10 is not consistent"),
        (b"1,2,3,4", CSV, "image/png", 406, "Accept type image/png is not supported"),
        (b"1,2,3,4\n" * 1_000_000, CSV, CSV, 413, "larger than MAX_CONTENT_LENGTH, 6291456"),
    ],
)
def test_what_cannot_be_answered_gets_the_containers_status(
    served: Callable[..., Predictor], body: bytes, content_type: str, accept: str, status: int, words: str
) -> None:
    found, text, _ = served(booster())(body, content_type, accept)
    assert found == status and words in text.decode()


def test_the_default_reply_format_can_be_chosen(served: Callable[..., Predictor]) -> None:
    answer = served(booster(), SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT=JSON)
    for accept in ("", "*/*"):
        assert answer(csv_of(FEATURES[:1]), CSV, accept)[2] == JSON
    with pytest.raises(ClientError, match="SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is image/png"):
        served(booster(), SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="image/png")


def test_several_models_are_an_ensemble(served: Callable[..., Predictor]) -> None:
    models = [booster(seed=seed) for seed in range(3)]
    mean = numpy.mean([wanted(model, FEATURES[:3]) for model in models], axis=0)
    body = served(*models)(csv_of(FEATURES[:3]), CSV, JSON)[1]
    assert [row["score"] for row in json.loads(body)["predictions"]] == mean.tolist()
    alone = served(*models, SAGEMAKER_INFERENCE_ENSEMBLE="false")
    body = alone(csv_of(FEATURES[:3]), CSV, JSON)[1]
    first = wanted(models[0], FEATURES[:3]).tolist()
    assert [row["score"] for row in json.loads(body)["predictions"]] == first


def test_an_ensemble_of_classes_votes(served: Callable[..., Predictor]) -> None:
    models = [booster("multi:softmax", seed=seed) for seed in range(3)]
    votes = numpy.stack([wanted(model, FEATURES) for model in models]).astype(int).T
    body = served(*models)(csv_of(FEATURES), CSV, JSON)[1]
    found = [row["score"] for row in json.loads(body)["predictions"]]
    assert found == [numpy.bincount(row).argmax() for row in votes]


@pytest.mark.parametrize("options", [{"booster": "gblinear"}, {"booster": "dart", "rate_drop": 0.5}])
def test_every_kind_of_booster_answers(served: Callable[..., Predictor], options: Mapping[str, Any]) -> None:
    model = booster(**{"objective": "binary:logistic", **options})
    body = served(model)(csv_of(FEATURES[:3]), CSV, CSV)[1]
    assert body.decode() == ",".join(str(value) for value in wanted(model, FEATURES[:3]).tolist())


def test_a_model_that_early_stopping_left_long_answers_with_its_best_round(
    served: Callable[..., Predictor],
) -> None:
    model = booster()
    model.set_attr(best_iteration="2")
    body = served(model)(csv_of(FEATURES[:2]), CSV, CSV)[1]
    best = model.predict(xgboost.DMatrix(FEATURES[:2]), iteration_range=(0, 3))
    assert body.decode() == ",".join(str(value) for value in best.tolist())


def test_models_of_other_places_are_taken(served: Callable[..., Predictor], tmp_path: Path) -> None:
    model = booster()
    expected = ",".join(str(value) for value in wanted(model, FEATURES[:2]).tolist()).encode()
    for data in (bytes(model.save_raw("json")), pickle.dumps(model)):
        assert served(data)(csv_of(FEATURES[:2]), CSV, CSV)[1] == expected
    (tmp_path / "xgboost-model").unlink()
    (tmp_path / "code").mkdir()
    (tmp_path / "README.md").write_text("about")
    model.save_model(tmp_path / "model.json")
    assert load_predictor("xgboost", tmp_path)(csv_of(FEATURES[:2]), CSV, CSV)[1] == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"this is no model", "The model file xgboost-model is no XGBoost model"),
        (b"", "The model file xgboost-model is no XGBoost model"),
        (b"\x80\x04broken", "is a pickle that cannot be read here"),
        (pickle.dumps({"a": 1}), "is a pickle of dict, not of a Booster"),
    ],
)
def test_a_broken_model_says_what_is_wrong_with_it(
    served: Callable[..., Predictor], data: bytes, words: str
) -> None:
    with pytest.raises(ClientError) as caught:
        served(data)
    assert words in str(caught.value)


def test_an_empty_model_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"holds no model file \(xgboost-model\)"):
        load_predictor("xgboost", tmp_path)


def test_execution_parameters_are_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_NUM_CPUS", "3")
    assert execution_parameters("xgboost") == {
        "MaxConcurrentTransforms": 3,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 6,
    }


def test_threads_that_ask_at_once_get_their_own_answers(served: Callable[..., Predictor]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = booster("multi:softprob")
    answer = served(model)
    requests = [csv_of(FEATURES[start : start + 1 + start % 3]) for start in range(60)] * 5
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda body: answer(body, CSV, CSV), requests))
    assert found == [answer(body, CSV, CSV) for body in requests]


def test_another_version_of_the_library_answers_the_same(
    served: Callable[..., Predictor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = booster()
    fast = served(model)(csv_of(FEATURES[:5]), CSV, JSON)
    monkeypatch.setattr("clary.algorithms.xgboost.in_place.xgboost.core._LIB", None)
    from clary.algorithms.xgboost.in_place import DensePredictor

    plain = DensePredictor(model, 0, 0)
    monkeypatch.undo()
    scores = [{"score": score} for score in plain(FEATURES[:5]).tolist()]
    assert json.loads(fast[1]) == {"predictions": scores}
