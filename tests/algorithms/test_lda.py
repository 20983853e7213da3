"""LDA: the topics that documents were drawn of are found, and real text is told as well as anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from sklearn.decomposition import LatentDirichletAllocation

from clary.algorithms.algorithm import check_hyperparameters, find_algorithm, get_algorithm
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file, write_arrays
from clary.algorithms.formats.recordio import Tensor, read_rows, write_frame, write_record, write_uniform
from clary.algorithms.lda import spectral, topics
from clary.algorithms.lda import train as training
from clary.algorithms.lda.documents import read_documents
from clary.algorithms.lda.predict import load
from clary.algorithms.lda.spectral import Attempts, first_topics
from clary.algorithms.lda.train import train

RECORDIO = "application/x-recordio-protobuf"
SPEC = get_algorithm("lda")
NIPS = Path(__file__).parent.parent / "data" / "nips-train_first_20.pbr"
TOPICS, WORDS = 5, 100


def drawn(documents: int = 600, length: int = 60, seed: int = 0) -> tuple[Any, Any, Any]:
    """Counts, and the topics and mixtures of which they are drawn; the last topic is rare."""
    random = numpy.random.default_rng(seed)
    beta = numpy.random.default_rng(99).dirichlet([0.1] * WORDS, TOPICS)
    shares = random.dirichlet([0.3, 0.25, 0.2, 0.15, 0.1], documents)
    counts = numpy.stack([random.multinomial(length, each / each.sum()) for each in shares @ beta])
    return counts.astype(numpy.float32), beta, shares


def uniform(rows: Any) -> bytes:
    return write_uniform({"values": rows}, {})


def sparse(rows: Any) -> bytes:
    return b"".join(
        write_frame(write_record({"values": Tensor(row[row != 0], numpy.flatnonzero(row), (len(row),))}, {}))
        for row in rows
    )


def options(**hyperparameters: object) -> Mapping[str, object]:
    return {"num_topics": TOPICS, "feature_dim": WORDS, "mini_batch_size": 600, **hyperparameters}


def trained(folder: Any, **hyperparameters: object) -> Mapping[str, Any]:
    train(folder.job(**options(**hyperparameters)))
    return read_array_file(folder.base / "model/model_algo-1")


def matched(found: Any, true: Any) -> tuple[Any, float]:
    """Which found topic each true one is, and the mean cosine between them."""
    near = (true / numpy.linalg.norm(true, axis=1, keepdims=True)) @ (
        found / numpy.linalg.norm(found, axis=1, keepdims=True)
    ).T
    rows, columns = linear_sum_assignment(-near)
    return columns, float(near[rows, columns].mean())


def held_out(counts: Any, alpha: Any, beta: Any) -> float:
    """The log likelihood of a word of the second half of each document, told by the first."""
    first = numpy.random.default_rng(5).binomial(counts.astype(int), 0.5)
    shares = topics.mixtures(csr_matrix(first.astype(numpy.float32)), alpha, beta)
    second = counts - first
    return float((second * numpy.log(shares @ beta + 1e-12)).sum() / second.sum())


@pytest.mark.parametrize("content", [uniform, sparse])
def test_the_topics_that_documents_are_drawn_of_are_found(folder: Any, content: Any) -> None:
    counts, beta, shares = drawn()
    folder.channel("train", {"a": content(counts)}, RECORDIO)
    found = trained(folder)
    assert set(found) == {"alpha", "beta"}
    assert found["alpha"].shape == (TOPICS,) and found["beta"].shape == (TOPICS, WORDS)
    assert numpy.allclose(found["beta"].sum(axis=1), 1, atol=1e-5) and (found["beta"] > 0).all()
    order, near = matched(found["beta"], beta)
    assert near > 0.99
    assert found["alpha"].sum() == pytest.approx(1.0, abs=1e-5)
    assert numpy.allclose(found["alpha"][order], [0.3, 0.25, 0.2, 0.15, 0.1], atol=0.04)
    told = topics.mixtures(csr_matrix(counts), found["alpha"], found["beta"])[:, order]
    assert numpy.abs(told - shares).mean() < 0.05


def test_documents_not_seen_are_told_as_well_as_by_scikit_learn(folder: Any) -> None:
    counts, beta, _ = drawn()
    folder.channel("train", {"a": uniform(counts)}, RECORDIO)
    found = trained(folder)
    theirs = LatentDirichletAllocation(TOPICS, random_state=0, max_iter=20).fit(counts).components_
    theirs = theirs / theirs.sum(axis=1, keepdims=True)
    outside = drawn(documents=100, seed=1)[0]
    ours = held_out(outside, found["alpha"], found["beta"])
    assert ours >= held_out(outside, numpy.full(TOPICS, 0.2), theirs)
    assert ours >= held_out(outside, numpy.full(TOPICS, 0.2), beta) - 0.02
    assert matched(found["beta"], beta)[1] > matched(theirs, beta)[1] - 1e-3


def test_real_text_is_told_better_by_topics_than_by_one(folder: Any) -> None:
    records = [record.features["values"] for record in read_rows(NIPS.read_bytes(), "nips")]
    words = records[0].shape[0]
    folder.channel("train", {"nips": NIPS.read_bytes()}, RECORDIO)
    said = {}
    for count in (1, 4):
        found = trained(folder, num_topics=count, feature_dim=words, mini_batch_size=len(records))
        counts = numpy.zeros((len(records), words), numpy.float32)
        for row, record in enumerate(records):
            counts[row, record.keys] = record.values
        said[count] = topics.log_likelihood(csr_matrix(counts), found["alpha"], found["beta"]) / counts.sum()
    assert said[4] > said[1] + 0.1


def test_each_pass_tells_the_documents_better() -> None:
    counts = csr_matrix(drawn(documents=200)[0])
    random = numpy.random.default_rng(0)
    refinement = topics.Refinement(counts, random.dirichlet(numpy.ones(WORDS), TOPICS), 1.0)
    likely = [refinement.step() for _ in range(30)]
    assert (numpy.diff(likely)[:10] > 0).all() and likely[-1] > likely[0] + 0.5


def test_judging_a_word_by_the_others_tells_more_of_documents_not_seen() -> None:
    counts, outside = csr_matrix(drawn(documents=150)[0]), drawn(documents=200, seed=1)[0]
    beta, _ = first_topics(counts, TOPICS, 1.0, Attempts(3, 100, 1e-8), lambda: False, 0)
    told = []
    for collapsed in (False, True):
        refinement = topics.Refinement(counts, beta, 1.0)
        for number in range(30):
            if collapsed and number >= 5:
                refinement.collapsed_step()
            else:
                refinement.step()
        told.append(held_out(outside, refinement.alpha, refinement.beta))
    assert told[1] > told[0]


def test_blocks_make_no_difference(folder: Any, monkeypatch: Any) -> None:
    folder.channel("train", {"a": uniform(drawn(documents=30)[0])}, RECORDIO)
    whole = trained(folder, mini_batch_size=30)
    monkeypatch.setattr(topics, "_BLOCK_BYTES", 4 * TOPICS * 100)
    assert numpy.allclose(trained(folder, mini_batch_size=30)["beta"], whole["beta"], atol=1e-4)


def test_the_same_data_gives_the_same_model(folder: Any, csv_bytes: Any) -> None:
    counts = drawn(documents=100)[0]
    folder.channel("train", {"a": uniform(counts[:50]), "b": uniform(counts[50:])}, RECORDIO)
    first = trained(folder, mini_batch_size=100)
    folder.channel("train", {"a": csv_bytes(counts)}, "text/csv")
    (folder.base / "input/data/train/b").unlink(missing_ok=True)
    second = trained(folder, mini_batch_size=100)
    assert (first["beta"] == second["beta"]).all() and (first["alpha"] == second["alpha"]).all()


@pytest.mark.parametrize(
    "counts",
    [
        numpy.eye(6, WORDS, dtype=numpy.float32),  # a word each: no pairs
        numpy.tile(drawn(documents=1)[0], (6, 1)),  # all the same
        drawn(documents=6)[0] / 100,  # less than a word
        numpy.float32(1e30) * drawn(documents=6)[0],
    ],
    ids=["one word each", "all the same", "fractions", "huge"],
)
def test_documents_that_tell_fewer_topics_still_give_as_many_as_asked(folder: Any, counts: Any) -> None:
    folder.channel("train", {"a": sparse(counts)}, RECORDIO)
    found = trained(folder, num_topics=6, mini_batch_size=6)
    assert found["beta"].shape == (6, WORDS) and numpy.isfinite(found["beta"]).all()
    assert numpy.allclose(found["beta"].sum(axis=1), 1, atol=1e-5) and (found["alpha"] > 0).all()


def test_more_topics_than_a_cube_holds_begin_as_documents(folder: Any, monkeypatch: Any) -> None:
    counts, beta, _ = drawn(documents=200)
    folder.channel("train", {"a": uniform(counts)}, RECORDIO)
    monkeypatch.setattr(spectral, "MOST_TOPICS", TOPICS - 1)
    assert matched(trained(folder, mini_batch_size=200)["beta"], beta)[1] > 0.8


def test_one_topic_is_how_often_words_occur(folder: Any) -> None:
    counts = drawn(documents=100)[0]
    folder.channel("train", {"a": uniform(counts)}, RECORDIO)
    found = trained(folder, num_topics=1, mini_batch_size=100)
    often = counts.sum(axis=0) + topics.WORD_PRIOR
    assert numpy.allclose(found["beta"][0], often / often.sum(), atol=1e-5)


def test_attempts_are_bounded_and_heed_a_stop() -> None:
    counts = csr_matrix(drawn(documents=200)[0])
    beta, told = first_topics(counts, TOPICS, 1.0, Attempts(1_000_000, 1_000_000, 1e-300), lambda: True, 0)
    assert beta.shape == (TOPICS, WORDS) and told == TOPICS


def test_a_job_told_to_stop_keeps_its_topics(folder: Any, monkeypatch: Any) -> None:
    counts = drawn(documents=100)[0]
    folder.channel("train", {"a": uniform(counts)}, RECORDIO)
    job = folder.job(**options(mini_batch_size=100))
    read = read_documents

    def stopped_after(*arguments: Any) -> Any:
        found = read(*arguments)
        job.stop_requested = True
        return found

    monkeypatch.setattr(training, "read_documents", stopped_after)
    train(job)
    assert read_array_file(job.model / "model_algo-1")["beta"].shape == (TOPICS, WORDS)


def test_the_log_tells_how_likely_words_are(folder: Any) -> None:
    folder.channel("train", {"a": uniform(drawn()[0])}, RECORDIO)
    outside = drawn(documents=50, seed=1)[0]
    folder.channel("test", {"a": uniform(outside)}, RECORDIO)
    code, out, err = folder.run("lda", **options(mini_batch_size=7))
    assert code == 0, err
    names = {metric.name for metric in SPEC.metrics if re.search(metric.regex, out)}
    assert names == {"test:pwll", "train:pwll", "train:progress", "train:throughput"}
    said = re.search(r"#quality_metric: host=algo-1, test pwll <score>=(\S+)", out)
    found = read_array_file(folder.base / "model/model_algo-1")
    expected = topics.log_likelihood(csr_matrix(outside), found["alpha"], found["beta"]) / outside.sum()
    assert said and float(said.group(1)) == pytest.approx(expected, abs=1e-4)
    assert "mini_batch_size is 7, but the channel 'train' holds 600 documents" in out


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two topics, of the first two words and of the last."""
    beta = numpy.array([[0.5, 0.5, 0], [0, 0, 1]], numpy.float32)
    arrays = {"alpha": numpy.array([0.5, 0.5], numpy.float32), "beta": beta}
    (tmp_path / "model_algo-1").write_bytes(write_arrays(arrays))
    return tmp_path


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"4,5,0\n0,0,0\n0,0,9\n", "text/csv"),
        (b'{"instances": [{"features": [4, 5, 0]}, {"features": [0, 0, 0]}, {"features": [0, 0, 9]}]}',
         "application/json"),
        (b'{"instances": [{"data": {"features": {"keys": [0, 1], "shape": [3], "values": [4, 5]}}},'
         b'{"data": {"features": {"keys": [], "shape": [3], "values": []}}},'
         b'{"data": {"features": {"keys": [2], "shape": [3], "values": [9]}}}]}', "application/json"),
        (b'{"features": [4, 5, 0]}\n{"features": [0, 0, 0]}\n'
         b'{"data": {"features": {"keys": [2], "shape": [3], "values": [9]}}}\n', "application/jsonlines"),
        (uniform(numpy.array([[4, 5, 0], [0, 0, 0], [0, 0, 9]], numpy.float32)), RECORDIO),
        (sparse(numpy.array([[4, 5, 0], [0, 0, 0], [0, 0, 9]], numpy.float32)), RECORDIO),
    ],
    ids=["csv", "json", "sparse json", "json lines", "records", "sparse records"],
)  # fmt: skip
def test_mixtures_are_answered(model: Path, body: bytes, kind: str) -> None:
    answer = load(model)
    status, reply, reply_type = answer(body, kind, "")
    assert (status, reply_type) == (200, "application/json"), reply
    rows = [row["topic_mixture"] for row in json.loads(reply)["predictions"]]
    # Nine words and half a word of the prior for either topic; without a word there is the prior only.
    assert numpy.allclose(rows, [[0.95, 0.05], [0.5, 0.5], [0.05, 0.95]], atol=1e-4)
    _, reply, _ = answer(body, kind, "application/jsonlines")
    lines = [json.loads(line)["topic_mixture"] for line in reply.splitlines()]
    assert numpy.allclose(lines, rows, atol=1e-6)
    _, reply, _ = answer(body, kind, RECORDIO)
    records = [row.label["topic_mixture"].values for row in read_rows(reply, "reply")]
    assert numpy.allclose(records, rows, atol=1e-6)
    assert answer(body, kind, "text/csv")[0] == 406


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"1,2,3\n1,-2,3\n", "document 2: feature 2 is -2, but must be how often a word occurs"),
        (b"1,2\n", "line 1: it has 2 features, but the model takes 3"),
        (b"1,nan,3\n", "line 1: feature 2 is missing or NaN"),
    ],
)
def test_requests_that_will_not_do_are_refused(model: Path, body: bytes, words: str) -> None:
    status, reply, _ = load(model)(body, "text/csv", "")
    assert status == 400 and words in reply.decode()


def test_topics_may_be_taken_out_of_a_model(model: Path) -> None:
    arrays = read_array_file(model / "model_algo-1")
    kept = {"alpha": arrays["alpha"][:1], "beta": arrays["beta"][:1] * 3}
    (model / "model_algo-1").write_bytes(write_arrays(kept))
    _, reply, _ = load(model)(b"4,5,0\n", "text/csv", "")
    assert json.loads(reply) == {"predictions": [{"topic_mixture": [1.0]}]}


@pytest.mark.parametrize(
    ("content", "given", "message"),
    [
        (b"1,2\n3,-4\n", {}, "train/a, line 2: feature 2 is -4, but must be how often a word occurs"),
        (b"1,2\n0,0\n", {}, "train/a, line 2: the document is empty"),
        (b"1,2\n3,inf\n", {}, "train/a, line 2: feature 2 is infinite"),
        (b"1,2\n3,nan\n", {}, "train/a, line 2: feature 2 is missing or NaN"),
        (b"1,2\n3,4\n", {"feature_dim": 3}, "has 2 features, but feature_dim is 3"),
        (b"1,2\n", {"num_topics": 2}, "num_topics is 2, but the channel 'train' holds 1 document(s)"),
        (b"", {}, "The files of channel 'train' are empty"),
    ],
)
def test_bad_data_is_refused_with_its_place(
    folder: Any, content: bytes, given: dict[str, object], message: str
) -> None:
    folder.channel("train", {"a": content}, "text/csv;label_size=0")
    with pytest.raises(ClientError) as raised:
        trained(folder, **{"num_topics": 1, "feature_dim": 2, "mini_batch_size": 2, **given})
    assert message in str(raised.value)


def test_a_bad_test_channel_is_told_by_its_name(folder: Any) -> None:
    folder.channel("train", {"a": b"1,2\n3,4\n"}, "text/csv;label_size=0")
    folder.channel("test", {"a": b"1,-2\n"}, "text/csv;label_size=0")
    with pytest.raises(ClientError, match="test/a, line 1: feature 2 is -2"):
        trained(folder, num_topics=1, feature_dim=2, mini_batch_size=2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_topics": "0"}, "'0' is not in [1, "),
        ({"num_topics": "11"}, "there cannot be more topics than documents"),
        ({"alpha0": "0"}, "'0' is not in (0, +inf)"),
        ({"tol": "-1"}, "'-1' is not in (0, +inf)"),
        ({"max_restarts": "0"}, "'0' is not in [1, "),
        ({"max_iterations": "1.5"}, "'1.5' is not a whole number"),
    ],
)
def test_bad_hyperparameters_are_refused(values: dict[str, str], words: str) -> None:
    given = {"feature_dim": "30", "num_topics": "2", "mini_batch_size": "10", **values}
    [error] = check_hyperparameters(SPEC, given)
    assert words in error


def test_what_the_sdk_sends_is_taken() -> None:
    sent = {"feature_dim": "30", "num_topics": "2", "mini_batch_size": "10", "alpha0": "1.5",
            "max_restarts": "3", "max_iterations": "10", "tol": "1e-06"}  # fmt: skip
    assert check_hyperparameters(SPEC, sent) == []
    assert find_algorithm("lda", "1") is SPEC and SPEC.most_instances == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"alpha": [1.0]}, "must hold 'alpha' and 'beta'"),
        ({"alpha": [1.0, 1.0], "beta": [[1.0, 0.0]]}, "they must be"),
        ({"alpha": [0.0], "beta": [[1.0, 0.0]]}, "alpha must be positive"),
        ({"alpha": [1.0], "beta": [[1.0, -1.0]]}, "something positive in every row"),
        ({"alpha": [1.0], "beta": [[0.0, 0.0]]}, "something positive in every row"),
    ],
)
def test_a_model_that_will_not_do_is_told(tmp_path: Path, arrays: Any, message: str) -> None:
    content = {name: numpy.array(value, numpy.float32) for name, value in arrays.items()}
    (tmp_path / "model_algo-1").write_bytes(write_arrays(content))
    with pytest.raises(ClientError, match=message):
        load(tmp_path)


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="holds no model file"):
        load(tmp_path)
