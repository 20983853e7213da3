"""k-NN: exact where all vectors are looked at, in FAISS's own file, and as FAISS is where lists are."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from clary.algorithms.algorithm import check_hyperparameters, find_algorithm, get_algorithm
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.recordio import read_rows, write_uniform
from clary.algorithms.knn.index import FlatIndex, build_lists, read_index
from clary.algorithms.knn.predict import load
from clary.algorithms.knn.reduction import Reduction, read_reduction
from clary.algorithms.knn.train import train

RECORDIO = "application/x-recordio-protobuf"
SPEC = get_algorithm("knn")
DIGITS = load_digits()
ROWS, LABELS = DIGITS.data.astype(numpy.float32), DIGITS.target.astype(numpy.float32)
OPTIONS = {"feature_dim": 64, "k": 5, "predictor_type": "classifier", "sample_size": 5000}
# FAISS 1.15.1's serialize_index of a flat index of (1, 2), (3, 4) and (5, 6), by distance and by product.
FROM_FAISS = {
    "L2": "4978463202000000030000000000000000001000000000000000100000000000010100000006000000000000000000803f"
    "0000004000004040000080400000a0400000c040",
    "INNER_PRODUCT": "49784649020000000300000000000000000010000000000000001000000000000100000000060000000000"
    "00000000803f0000004000004040000080400000a0400000c040",
}


def uniform(rows: Any, labels: Any) -> bytes:
    return write_uniform({"values": rows}, {"values": labels})


@pytest.fixture
def faiss() -> Any:
    if "CLARY_TESTS_MUST_RUN" in os.environ:
        import faiss

        return faiss
    return pytest.importorskip("faiss", reason="needs faiss: pip install 'clary[ann]'")


def trained(folder: Any, rows: Any = ROWS[:1500], labels: Any = LABELS[:1500], **options: object) -> Any:
    """A predictor."""
    folder.channel("train", {"a": uniform(rows, labels)}, RECORDIO)
    train(folder.job(**{**OPTIONS, **options}))
    return load(folder.base / "model")


def predicted(answer: Any, rows: Any) -> Any:
    status, reply, _ = answer(write_uniform({"values": rows}, {}), RECORDIO, RECORDIO)
    assert status == 200, reply
    return numpy.array([row.label["predicted_label"].values[0] for row in read_rows(reply, "reply")])


@pytest.mark.parametrize("metric", ["L2", "COSINE"])
def test_a_classifier_votes_as_brute_force_does(folder: Any, metric: str) -> None:
    found = predicted(trained(folder, index_metric=metric), ROWS[1500:])
    brute = KNeighborsClassifier(
        5, algorithm="brute", metric="cosine" if metric == "COSINE" else "euclidean"
    ).fit(ROWS[:1500], LABELS[:1500])
    assert (found == brute.predict(ROWS[1500:])).all()


def test_a_regressor_gives_the_mean_as_brute_force_does(folder: Any) -> None:
    data = load_diabetes(scaled=False)
    rows, labels = data.data.astype(numpy.float32), data.target.astype(numpy.float32)
    answer = trained(folder, rows[:400], labels[:400], predictor_type="regressor", feature_dim=10)
    brute = KNeighborsRegressor(5, algorithm="brute").fit(rows[:400].astype(float), labels[:400])
    assert numpy.allclose(predicted(answer, rows[400:]), brute.predict(rows[400:].astype(float)), rtol=1e-6)


def test_verbose_tells_neighbours_the_nearest_first(folder: Any) -> None:
    answer = trained(folder, k=3)
    body = ",".join(map(str, ROWS[1500])).encode()
    brute = KNeighborsClassifier(3, algorithm="brute").fit(ROWS[:1500].astype(float), LABELS[:1500])
    [distances], [numbers] = brute.kneighbors(ROWS[1500:1501].astype(float))
    _, reply, _ = answer(body, "text/csv", "application/json; verbose=true")
    [found] = json.loads(reply)["predictions"]
    assert numpy.allclose(found["distances"], distances) and found["labels"] == LABELS[numbers].tolist()
    assert found["predicted_label"] == LABELS[1500]
    _, reply, _ = answer(body, "text/csv", f"{RECORDIO}; verbose=true")
    [row] = read_rows(reply, "reply")
    assert row.label["labels"].values.tolist() == LABELS[numbers].tolist()
    _, reply, _ = answer(body, "text/csv", "application/jsonlines")
    assert json.loads(reply) == {"predicted_label": float(LABELS[1500])}


def test_products_are_told_the_largest_first(folder: Any) -> None:
    rows = numpy.array([[1, 0], [2, 0], [0, 3]], numpy.float32)
    answer = trained(folder, rows, rows[:, 0], feature_dim=2, k=2, index_metric="INNER_PRODUCT")
    _, reply, _ = answer(b"1,1", "text/csv", "application/json;verbose=true")
    [found] = json.loads(reply)["predictions"]
    assert found["distances"] == [3, 2] and found["labels"] == [0, 2]


def test_only_a_sample_is_kept(folder: Any) -> None:
    answer = trained(folder, sample_size=300, k=1)
    assert (folder.base / "model/model_algo-1.labels").stat().st_size == 4 * 300
    assert (predicted(answer, ROWS[1500:]) == LABELS[1500:]).mean() > 0.85


@pytest.mark.parametrize("kind", ["sign", "fjlt"])
def test_a_reduction_keeps_distances_roughly(folder: Any, kind: str) -> None:
    answer = trained(folder, dimension_reduction_type=kind, dimension_reduction_target=40)
    accuracy = (predicted(answer, ROWS[1500:]) == LABELS[1500:]).mean()
    assert accuracy > 0.9
    project = Reduction(kind, 3, 64, 40).projector()
    before = numpy.linalg.norm(ROWS[:200] - ROWS[200:400], axis=1)
    after = numpy.linalg.norm(project(ROWS[:200]) - project(ROWS[200:400]), axis=1)
    assert 0.9 < (after / before).mean() < 1.1 and (after / before).std() < 0.2


def test_a_model_is_three_documented_files_and_its_settings_can_be_edited(folder: Any) -> None:
    trained(folder, dimension_reduction_type="sign", dimension_reduction_target=32)
    model = folder.base / "model"
    about = json.loads((model / "model_algo-1.json").read_text())
    assert about["version"] == "1.0" and about["k"] == 5 and about["normalize"] is False
    assert {"type": "sign", "target_dim": 32, "input_dim": 64}.items() <= about["dimension_reduction"].items()
    assert (numpy.frombuffer((model / "model_algo-1.labels").read_bytes(), "<f4") == LABELS[:1500]).all()
    (model / "model_algo-1.json").write_text(json.dumps({**about, "k": 3, "predictor_type": "regressor"}))
    body = ",".join(map(str, ROWS[1501])).encode()
    _, reply, _ = load(model)(body, "text/csv", "application/json;verbose=true")
    [found] = json.loads(reply)["predictions"]
    assert len(found["labels"]) == 3 and found["predicted_label"] == pytest.approx(sum(found["labels"]) / 3)


@pytest.mark.parametrize("metric", ["L2", "INNER_PRODUCT"])
def test_a_flat_index_is_written_as_faiss_writes_it(metric: str) -> None:
    vectors = numpy.array([[1, 2], [3, 4], [5, 6]], numpy.float32)
    assert FlatIndex(vectors, metric).written().hex() == FROM_FAISS[metric]
    again = read_index(bytes.fromhex(FROM_FAISS[metric]))
    assert (again.count, again.width) == (3, 2)
    assert again.search(vectors[:1], 1)[1].tolist() == [[0 if metric == "L2" else 2]]


def test_a_flat_index_finds_the_exact_nearest_far_from_the_origin() -> None:
    random = numpy.random.default_rng(4)
    vectors = (random.normal(size=(500, 8)) + 1000).astype(numpy.float32)
    distances, _ = FlatIndex(vectors, "L2").search(vectors[:50] + numpy.float32(0.01), 10)
    gaps = (vectors[:50] + numpy.float32(0.01)).astype(float)[:, None] - vectors[None].astype(float)
    exact = numpy.sort(numpy.linalg.norm(gaps, axis=2), axis=1)[:, :10]
    assert numpy.allclose(distances, exact, rtol=1e-4) and (numpy.diff(distances) >= 0).all()


@pytest.mark.parametrize("metric", ["L2", "INNER_PRODUCT"])
@pytest.mark.parametrize("count", [1, 700, 3001])
def test_the_nearest_of_many_are_those_of_brute_force(metric: str, count: int) -> None:
    random = numpy.random.default_rng(count)
    vectors = random.normal(size=(count, 5)).astype(numpy.float32)
    rows = random.normal(size=(40, 5)).astype(numpy.float32)
    distances, found = FlatIndex(vectors, metric).search(rows, 7)
    products = rows.astype(float) @ vectors.T.astype(float)
    gaps = numpy.linalg.norm(rows.astype(float)[:, None] - vectors[None], axis=2)
    far = gaps if metric == "L2" else -products
    assert (found == numpy.argsort(far, axis=1)[:, :7]).all()
    expected = numpy.sort(far, axis=1)[:, :7]
    assert numpy.allclose(distances, expected if metric == "L2" else -expected, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"index_type": "faiss.IVFFlat", "faiss_index_ivf_nlists": 20},
        {"index_type": "faiss.IVFFlat", "index_metric": "COSINE"},
        {"index_type": "faiss.IVFPQ", "faiss_index_pq_m": 12},
        {"index_type": "faiss.IVFPQ", "faiss_index_pq_m": 16, "dimension_reduction_type": "sign",
         "dimension_reduction_target": 30},
    ],
)  # fmt: skip
def test_inverted_lists_find_nearly_the_same(folder: Any, faiss: Any, options: dict[str, object]) -> None:
    answer = trained(folder, **options)
    assert (predicted(answer, ROWS[1500:]) == LABELS[1500:]).mean() > 0.85
    index = faiss.read_index(str(folder.base / "model/model_algo-1"))
    assert index.ntotal == 1500


def test_faiss_finds_the_same_in_the_flat_file(folder: Any, faiss: Any) -> None:
    trained(folder)
    index = faiss.read_index(str(folder.base / "model/model_algo-1"))
    _, found = index.search(ROWS[1500:], 5)
    _, own = read_index((folder.base / "model/model_algo-1").read_bytes()).search(ROWS[1500:], 5)
    assert (numpy.sort(found) == numpy.sort(own)).mean() > 0.99  # equal distances may be either


def test_lists_with_too_few_vectors_are_made_up_for(faiss: Any) -> None:
    index = build_lists(ROWS[:200], "L2", 100, 0, 1)
    _, found = index.search(ROWS[:20], 150)
    assert (found >= 0).all()


def test_lists_without_the_library_are_refused(folder: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ClientError, match=r"needs the library faiss: pip install 'clary\[ann\]'"):
        trained(folder, index_type="faiss.IVFFlat")


def test_product_quantization_of_too_few_records_is_refused(folder: Any, faiss: Any) -> None:
    with pytest.raises(ClientError, match="needs at least 256 records; there are 100"):
        trained(folder, ROWS[:100], LABELS[:100], index_type="faiss.IVFPQ", faiss_index_pq_m=8)


def test_csv_has_its_label_first(folder: Any, csv_bytes: Any) -> None:
    expected = predicted(trained(folder), ROWS[1500:])
    rows = csv_bytes(numpy.column_stack([LABELS, ROWS])[:1500])
    folder.channel("train", {"a": rows}, "text/csv")
    train(folder.job(**OPTIONS))
    assert (predicted(load(folder.base / "model"), ROWS[1500:]) == expected).all()


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_the_log_tells_metrics_of_the_test_channel(folder: Any, kind: str) -> None:
    folder.channel("train", {"a": uniform(ROWS[:1500], LABELS[:1500])}, RECORDIO)
    folder.channel("test", {"a": uniform(ROWS[1500:], LABELS[1500:])}, RECORDIO)
    code, out, err = folder.run("knn", **{**OPTIONS, "predictor_type": kind})
    assert code == 0, err
    found = {
        metric.name: match.group(1) for metric in SPEC.metrics if (match := re.search(metric.regex, out))
    }
    if kind == "classifier":
        assert float(found["test:accuracy"]) > 0.95 and "test:mse" not in found
        assert f"#test_score (algo-1) : ('accuracy', {found['test:accuracy']})" in out
        assert "('macro_f_1.000', 0.9" in out
    else:
        assert float(found["test:mse"]) < 1 and "test:accuracy" not in found
        assert "('rmse', " in out and "('absolute_loss', " in out


@pytest.mark.slow
def test_hosts_share_the_sample(cluster: Any) -> None:
    folders = cluster(2)
    for number, host in enumerate(folders.hosts):
        for channel, part in (("train", slice(number, 1500, 2)), ("test", slice(1500 + number, None, 2))):
            host.channel(channel, {"part": uniform(ROWS[part], LABELS[part])}, RECORDIO)
            host.channels[channel]["S3DistributionType"] = "ShardedByS3Key"
        host.write("inputdataconfig.json", host.channels)
    ends = folders.run(algorithm="knn", **{**OPTIONS, "sample_size": 1400})
    assert [code for code, _, _ in ends] == [0, 0], ends
    model = folders.first.base / "model"
    assert (model / "model_algo-1.labels").stat().st_size == 4 * 1400
    accuracy = (predicted(load(model), ROWS[1500:]) == LABELS[1500:]).mean()
    assert accuracy > 0.95
    told = re.search(r"test accuracy <score>=(\S+)", ends[0][1])
    assert told and float(told.group(1)) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("content", "content_type", "options", "message"),
    [
        (b"1,2,3\n0,4,5\n", "text/csv", {"k": 3}, "k is 3, but the sample of the channel 'train' holds 2"),
        (b"1,2,3\n0.5,4,5\n", "text/csv", {}, "train/a, line 2: the label 0.5 is no whole number"),
        (b"1,2,3\n,4,5\n", "text/csv", {}, "train/a, line 2: the label is missing, NaN or infinite"),
        (b"1,2,3,4\n", "text/csv;label_size=2", {}, "line 1: there are 2 labels, but k-NN takes one"),
        (b"1,2\n", "text/csv;label_size=0", {}, "label_size must be at least 1"),
        (b"1,2\n", "text/csv", {}, "has 1 features, but feature_dim is 2"),
        (
            write_uniform({"values": ROWS}, {}),
            RECORDIO,
            {"feature_dim": 64},
            "record 1: the record has no label",
        ),
    ],
)
def test_bad_data_is_refused_with_its_place(
    folder: Any, content: bytes, content_type: str, options: dict[str, object], message: str
) -> None:
    folder.channel("train", {"a": content}, content_type)
    with pytest.raises(ClientError) as raised:
        train(folder.job(**{**OPTIONS, "feature_dim": 2, "k": 1, **options}))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"predictor_type": "ranker"}, "'ranker' is not in [classifier, regressor]"),
        ({"dimension_reduction_type": "sign"}, "dimension_reduction_target must be too"),
        ({"dimension_reduction_target": "2"}, "dimension_reduction_type must be too"),
        (
            {"dimension_reduction_type": "fjlt", "dimension_reduction_target": "64"},
            "dimension_reduction_target is 64, but must be less than feature_dim, 64",
        ),
        ({"index_type": "faiss.IVFPQ"}, "faiss_index_pq_m must be set"),
        (
            {"index_type": "faiss.IVFPQ", "faiss_index_pq_m": "8", "index_metric": "COSINE"},
            "supports L2 only",
        ),
        ({"faiss_index_pq_m": "7"}, "'7' is not in [1, 2, 3, 4, 8"),
    ],
)
def test_bad_hyperparameters_are_refused(values: dict[str, str], words: str) -> None:
    [error] = check_hyperparameters(SPEC, {**{name: str(v) for name, v in OPTIONS.items()}, **values})
    assert words in error


def test_its_image_is_known() -> None:
    assert find_algorithm("knn", "1") is SPEC


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model_algo-1", b"nothing", "no index of FAISS that is known here"),
        ("model_algo-1", bytes.fromhex(FROM_FAISS["L2"])[:-4], "bytes, but 69 are announced"),
        ("model_algo-1.labels", b"1234", "it has 4 bytes, but the index has 1500 vectors"),
        ("model_algo-1.json", b"[]", "it is no JSON object"),
        ("model_algo-1.json", b'{"k": 0}', "its k is 0"),
        ("model_algo-1.json", b'{"k": 1, "predictor_type": "x"}', "its predictor_type is x"),
        (
            "model_algo-1.json",
            b'{"k": 1, "predictor_type": "classifier", "feature_dim": 65}',
            "it tells of 65 features, and the index is of 64 numbers",
        ),
    ],
)
def test_a_model_that_cannot_be_read_is_told(folder: Any, name: str, content: bytes, message: str) -> None:
    trained(folder)
    (folder.base / "model" / name).write_bytes(content)
    with pytest.raises(ClientError, match=re.escape(message)):
        load(folder.base / "model")


@pytest.mark.parametrize(
    "document",
    [{}, {"type": "other"}, {"type": "sign", "seed": -1, "input_dim": 2, "target_dim": 1},
     {"type": "sign", "seed": 1, "input_dim": 2, "target_dim": 3},
     {"type": "fjlt", "seed": 1, "input_dim": 1 << 60, "target_dim": 3}],
)  # fmt: skip
def test_a_reduction_that_will_not_do_is_told(document: object) -> None:
    with pytest.raises(ValueError, match="its dimension_reduction is"):
        read_reduction(document)


def test_a_projection_is_the_same_everywhere(tmp_path: Path) -> None:
    """Models outlive versions of numpy: these numbers must not change."""
    signs = Reduction("sign", 7, 6, 3).projector()(numpy.eye(6, dtype=numpy.float32))
    assert ((signs > 0).astype(int) * [4, 2, 1]).sum(axis=1).tolist() == SIGNS
    transformed = Reduction("fjlt", 7, 6, 3).projector()(numpy.eye(6, dtype=numpy.float32))
    assert ((transformed > 0).astype(int) * [4, 2, 1]).sum(axis=1).tolist() == TRANSFORMED


SIGNS = [4, 2, 6, 4, 5, 3]
TRANSFORMED = [7, 3, 6, 5, 6, 2]
