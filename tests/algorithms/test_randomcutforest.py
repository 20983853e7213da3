"""Random Cut Forest: a uniform sample of a stream, trees through it, and scores that tell the unlikely."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from clary.algorithms.algorithm import check_hyperparameters, find_algorithm, get_algorithm
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file, write_arrays
from clary.algorithms.formats.recordio import Tensor, read_rows, write_frame, write_record, write_uniform
from clary.algorithms.job import Job
from clary.algorithms.randomcutforest import forest as growing
from clary.algorithms.randomcutforest.evaluation import quality
from clary.algorithms.randomcutforest.forest import Forest, grow
from clary.algorithms.randomcutforest.model import load_forest
from clary.algorithms.randomcutforest.predict import load
from clary.algorithms.randomcutforest.reservoir import Reservoir, draws, shares
from clary.algorithms.randomcutforest.train import train

RECORDIO = "application/x-recordio-protobuf"
SPEC = get_algorithm("randomcutforest")


def normal(rows: int, columns: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).standard_normal((rows, columns)).astype(numpy.float32)


def grown(rows: Any, trees: int = 20, seed: int = 0) -> Forest:
    count = len(rows) // trees
    chosen = numpy.arange(trees * count).reshape(trees, count)
    return grow(rows, chosen, numpy.random.default_rng(seed))


def uniform(rows: Any, labels: Any = None) -> bytes:
    return write_uniform({"values": rows}, {} if labels is None else {"values": labels})


def model_of(folder: Any) -> Path:
    path: Path = folder.base / "model"
    return path


def trained(folder: Any, **hyperparameters: object) -> Forest:
    train(folder.job(**{"num_trees": 50, **hyperparameters}))
    return load_forest(model_of(folder))


def score_by_definition(forest: Forest, point: Any) -> float:
    """Point by point and from the leaf up, as the definition goes."""

    def under(node: int) -> Any:
        if node < 0:
            return forest.points[~node][None]
        return numpy.concatenate([under(child) for child in forest.children[node]])

    def score(node: int, depth: int) -> float:
        if node < 0:
            count = int(forest.counts[~node])
            if (forest.points[~node] == point).all():
                seen = 1 / (depth + numpy.log2(count + 1))
                return float((1 - count / (2 * forest.rows_per_tree)) * seen)
            return 1 / (depth + 1)
        box = under(node).astype(float)
        both = numpy.concatenate([box, point[None].astype(float)])
        side, wider = numpy.ptp(box, axis=0).sum(), numpy.ptp(both, axis=0).sum()
        parted = (wider - side) / wider
        below = int(point[forest.dimensions[node]] > forest.cuts[node])
        return parted / (depth + 1) + (1 - parted) * score(forest.children[node, below], depth + 1)

    found = numpy.mean([score(root, 0) for root in forest.roots])
    return float(found * numpy.log2(forest.rows_per_tree + 1))


@pytest.mark.parametrize("rows", [normal(400, 3), normal(100, 1), numpy.round(normal(300, 2)), normal(20, 4)])
def test_scores_are_those_of_the_definition(rows: Any) -> None:
    forest = grown(rows)
    asked = numpy.concatenate([rows[:10], normal(10, rows.shape[1], 1) * 2, rows[:1] + 100])
    expected = [score_by_definition(forest, point) for point in asked]
    assert forest.scores(asked) == pytest.approx(expected, rel=1e-5)


def test_scores_do_not_depend_on_what_is_asked_together() -> None:
    forest = grown(normal(4000, 5))
    asked = normal(700, 5, 1)
    found = forest.scores(asked)
    order = numpy.random.default_rng(0).permutation(len(asked))
    assert numpy.allclose(forest.scores(asked[order]), found[order], rtol=1e-6)
    assert numpy.allclose(forest.scores(asked[:1]), found[:1], rtol=1e-6)
    assert forest.scores(asked[:0]).shape == (0,)


def test_every_tree_holds_its_own_rows_and_every_cut_parts_its_box() -> None:
    rows = normal(640, 3)
    rows[5] = rows[4]
    forest = grown(rows, trees=10)
    for tree, root in enumerate(forest.roots):
        found: list[Any] = []
        waiting: list[tuple[int, Any, Any]] = [(root, numpy.full(3, -numpy.inf), numpy.full(3, numpy.inf))]
        while waiting:
            node, low, high = waiting.pop()
            if node < 0:
                assert (low < forest.points[~node]).all() and (forest.points[~node] <= high).all()
                found += [forest.points[~node]] * forest.counts[~node]
                continue
            column, cut = forest.dimensions[node], forest.cuts[node]
            assert low[column] < cut < high[column]
            left, right = high.copy(), low.copy()
            left[column] = right[column] = cut
            waiting += [(forest.children[node, 0], low, left), (forest.children[node, 1], right, high)]
        assert sorted(map(tuple, found)) == sorted(map(tuple, rows[tree * 64 : tree * 64 + 64]))


def test_wide_dimensions_are_cut_more_often() -> None:
    rows = normal(20_000, 2)
    rows[:, 1] *= 3
    forest = grown(rows, trees=200)
    first = forest.dimensions[forest.roots]
    assert 0.65 < first.mean() < 0.85  # three quarters


def test_trees_grown_in_groups_are_whole(monkeypatch: Any) -> None:
    rows = normal(1000, 3)
    alone = grown(rows)
    monkeypatch.setattr(growing, "_LARGEST_GROUP_BYTES", 4 * 3 * 50 * 7)
    forest = grown(rows)
    assert forest.trees == 20 and forest.counts.sum() == 1000
    assert forest.scores(rows[:20]) == pytest.approx([score_by_definition(forest, row) for row in rows[:20]])
    assert numpy.corrcoef(forest.scores(rows), alone.scores(rows))[0, 1] > 0.8


@given(st.integers(0, 2**31), st.integers(1, 6), st.sampled_from([1.0, 1e-30, 1e30]))
@settings(max_examples=30)
def test_what_is_farther_away_scores_higher(seed: int, columns: int, unit: float) -> None:
    rows = (normal(640, columns, seed) * unit).astype(numpy.float32)
    forest = grown(rows, seed=seed)
    direction = normal(1, columns, seed + 1)[0]
    direction /= numpy.abs(direction).max()
    far = numpy.stack([direction * unit * times for times in (6, 12, 100, 1e8)]).astype(numpy.float32)
    scores = forest.scores(far)
    assert (numpy.diff(scores) > 0).all()
    assert scores[0] > forest.scores(rows).max() or scores[1] > forest.scores(rows).max()


@pytest.mark.parametrize(
    "rows", [numpy.zeros((100, 2)), numpy.full((100, 2), 3e38), [[-3.4e38], [3.4e38]] * 50]
)
def test_extreme_values_give_finite_scores(rows: Any) -> None:
    rows = numpy.asarray(rows, numpy.float32)
    forest = grown(rows, trees=10)
    asked = numpy.concatenate([rows[:2], -rows[:2], rows[:1] * 0 + 1])
    scores = forest.scores(asked)
    assert numpy.isfinite(scores).all() and (scores > 0).all()
    assert scores[-1] > scores[0]


def test_the_reservoir_keeps_every_row_with_the_same_chance() -> None:
    rows = numpy.arange(500, dtype=numpy.float32)[:, None]
    times = numpy.zeros(500)
    for seed in range(2000):
        sample = Reservoir(20, 1, numpy.random.default_rng(seed))
        for start in range(0, 500, 30):
            sample.add(rows[start : start + 30])
        assert sample.rows.shape == (20, 1) and sample.seen == 500
        assert len(numpy.unique(sample.rows)) == 20
        times[sample.rows[:, 0].astype(int)] += 1
    expected = 2000 * 20 / 500
    statistic = ((times - expected) ** 2 / expected).sum()
    assert statistic < 499 + 5 * (2 * 499) ** 0.5


def test_a_reservoir_of_few_rows_has_them_all() -> None:
    sample = Reservoir(5000, 2, numpy.random.default_rng(0))
    rows = normal(3000, 2)
    sample.add(rows[:1])
    sample.add(rows[1:])
    assert (sample.rows == rows).all() and sample.kept == sample.seen == 3000


def test_hosts_share_the_sample_by_what_they_have_seen() -> None:
    random = numpy.random.default_rng(0)
    found = [shares([draws(50, 1000, random), draws(50, 3000, random), draws(0, 0, random)], 50)
             for _ in range(500)]  # fmt: skip
    counts = numpy.array(found)
    assert (counts.sum(axis=1) == 50).all() and (counts[:, 2] == 0).all()
    assert counts[:, 0].mean() == pytest.approx(12.5, abs=0.6)
    # As drawn without putting back: the variance of the hypergeometric distribution.
    assert counts[:, 0].var() == pytest.approx(50 * 0.25 * 0.75 * 3950 / 3999, rel=0.3)
    assert shares([draws(3, 3, random), draws(2, 2, random)], 50) == [3, 2]


@pytest.mark.parametrize("content", ["recordio", "sparse", "csv", "labelled csv"])
def test_the_same_records_give_the_same_model(folder: Any, csv_bytes: Any, content: str) -> None:
    rows = normal(3000, 4)
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    expected = trained(folder, feature_dim=4, num_samples_per_tree=20)
    if content == "recordio":
        folder.channel("train", {"a": uniform(rows[:1234]), "b": uniform(rows[1234:])}, RECORDIO)
    elif content == "sparse":
        keys = numpy.arange(4)
        frames = [write_frame(write_record({"values": Tensor(row, keys, (4,))}, {})) for row in rows]
        folder.channel("train", {"a": b"".join(frames), "b": b""}, RECORDIO)
    else:
        labels = 1 if content == "labelled csv" else 0
        table = numpy.column_stack([rows[:, 0] > 0, rows]) if labels else rows
        folder.channel("train", {"a": csv_bytes(table), "b": b""}, f"text/csv;label_size={labels}")
    found = trained(folder, feature_dim=4, num_samples_per_tree=20)
    for name in ("roots", "children", "dimensions", "cuts", "points", "counts"):
        assert (getattr(found, name) == getattr(expected, name)).all()
    assert found.trees == 50 and found.rows_per_tree == 20


def test_trees_shrink_where_records_are_few(folder: Any) -> None:
    folder.channel("train", {"a": uniform(normal(4032, 1))}, RECORDIO)
    code, out, err = folder.run(
        "randomcutforest", feature_dim=1, num_trees=50, num_samples_per_tree=512, epochs=1
    )
    assert code == 0, err
    forest = load_forest(model_of(folder))
    assert (forest.trees, forest.rows_per_tree) == (50, 80)
    assert "ForestInfo{num_trees: 50, num_samples_in_forest: 4000, num_samples_per_tree: 80" in out
    assert "each has 80" in out


@pytest.mark.slow
def test_hosts_grow_one_forest_of_all_records(cluster: Any) -> None:
    rows = normal(9000, 3)
    labels = numpy.zeros((200, 1), numpy.float32)
    labels[:5] = 1
    test = normal(200, 3, 1)
    test[:5] += 12
    for count in (2, 3):
        folders = cluster(count)
        for number, host in enumerate(folders.hosts):
            part = rows[number::2] if number < 2 else rows[:0]  # the third host has no records
            host.channel("train", {"part": uniform(part) if len(part) else b""}, RECORDIO)
            host.channel("test", {"all": uniform(test, labels)}, RECORDIO)
        models = []
        for _ in range(2):
            ends = folders.run(
                algorithm="randomcutforest", feature_dim=3, num_trees=50, num_samples_per_tree=64
            )
            assert [code for code, _, _ in ends] == [0] * count, ends
            models.append((folders.first.base / "model/model_algo-1").read_bytes())
        assert models[0] == models[1]
        assert not (folders.hosts[1].base / "model/model_algo-1").exists()
        assert "test f1 <score>=1" in ends[0][1]
        forest = load_forest(folders.first.base / "model")
        assert (forest.trees, forest.rows_per_tree) == (50, 64)
        known = {row.tobytes(): number % 2 for number, row in enumerate(rows)}
        owners = [known[point.tobytes()] for point in forest.points]
        assert numpy.mean(owners) == pytest.approx(0.5, abs=0.05)
        assert len({point.tobytes() for point in forest.points}) == 3200  # no row twice


@pytest.mark.slow
def test_hosts_that_all_have_everything_are_refused(cluster: Any) -> None:
    folders = cluster(2)
    for host in folders.hosts:
        host.channel("train", {"part": uniform(normal(200, 2))}, RECORDIO)
        host.channels["train"]["S3DistributionType"] = "FullyReplicated"
        host.write("inputdataconfig.json", host.channels)
    ends = folders.run(algorithm="randomcutforest", feature_dim=2)
    assert all(code == 1 for code, _, _ in ends), ends
    assert "'train' is FullyReplicated, but must be ShardedByS3Key" in folders.first.failure


def test_the_log_tells_what_the_labels_say(folder: Any, csv_bytes: Any) -> None:
    test = normal(1000, 2, 1)
    labels = numpy.zeros(1000)
    test[:10], labels[:10] = 30, 1
    labels[10:15] = 1  # which nothing tells from the others
    folder.channel("train", {"a": uniform(normal(5000, 2))}, RECORDIO)
    folder.channel("test", {"a": csv_bytes(numpy.column_stack([labels, test]))}, "text/csv;label_size=1")
    code, out, err = folder.run("randomcutforest", feature_dim=2)
    assert code == 0, err
    found = {
        metric.name: float(match.group(1))
        for metric in SPEC.metrics
        if (match := re.search(metric.regex, out)) is not None
    }
    assert set(found) == {metric.name for metric in SPEC.metrics}
    scores = load_forest(model_of(folder)).scores(test)
    told = scores > scores.mean() + 3 * scores.std()
    assert found["test:recall"] == pytest.approx((told & (labels == 1)).sum() / 15)
    assert found["test:precision"] == pytest.approx((told & (labels == 1)).sum() / told.sum())
    assert found["test:accuracy"] == pytest.approx((told == (labels == 1)).mean())
    assert found["test:f1"] == pytest.approx(
        2 / (1 / found["test:precision"] + 1 / found["test:recall"]), rel=1e-6
    )


def test_only_what_is_asked_for_is_told() -> None:
    scores, labels = numpy.array([1.0] * 50 + [90.0]), numpy.array([0] * 50 + [1])
    assert quality(scores, labels, ["accuracy"], lambda sums: sums) == {"accuracy": 1.0}
    found = quality(scores, labels, ["precision_recall_fscore"], lambda sums: sums)
    assert found == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    nothing = quality(scores[:50], labels[:50], ["precision_recall_fscore"], lambda sums: sums)
    assert nothing == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert quality(scores[:0], labels[:0], ["accuracy"], lambda sums: sums) == {}


def test_strange_digits_are_told(folder: Any) -> None:
    """Zeros are alike; a few other digits among them are not."""
    digits = load_digits()
    chosen = numpy.concatenate([numpy.flatnonzero(digits.target == 0), numpy.flatnonzero(digits.target)[:20]])
    rows, strange = digits.data[chosen].astype(numpy.float32), digits.target[chosen] > 0
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    assert roc_auc_score(strange, trained(folder, feature_dim=64).scores(rows)) > 0.98


def test_a_job_told_to_stop_goes_on_with_what_it_has_seen(folder: Any, monkeypatch: Any) -> None:
    folder.channel("train", {"a": uniform(normal(50_000, 2))}, RECORDIO)
    job = folder.job(feature_dim=2, num_samples_per_tree=16)
    add = Reservoir.add

    def add_and_stop(self: Reservoir, rows: Any) -> None:
        add(self, rows)
        job.stop_requested = True

    monkeypatch.setattr(Reservoir, "add", add_and_stop)
    train(job)
    assert load_forest(model_of(folder)).trees == 100


@pytest.fixture
def model(tmp_path: Path) -> Path:
    base = tmp_path / "ml"
    folder = base / "input/data/train"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(uniform(normal(1000, 3)))
    train(Job(base, {"feature_dim": "3", "num_trees": "50"}, {"train": {"ContentType": RECORDIO}}))
    return base / "model"


def test_scores_are_answered_in_every_form(model: Path) -> None:
    answer = load(model)
    near, far = load_forest(model).scores(numpy.array([[0, 0, 0], [9, 0, 9]], numpy.float32))
    assert far > 2 * near
    status, reply, kind = answer(b"0,0,0\n9,0,9\n", "text/csv; label_size=0", "")
    assert (status, kind) == (200, "application/json")
    assert json.loads(reply) == {"scores": [{"score": near}, {"score": far}]}
    dense = {"instances": [{"features": [0, 0, 0]}, {"data": {"features": {"values": [9, 0, 9]}}}]}
    assert answer(json.dumps(dense).encode(), "application/json", "application/json")[1] == reply
    sparse = (
        b'{"data": {"features": {"keys": [0, 2], "shape": [3], "values": [9, 9]}}}\n{"features": [0,0,0]}\n'
    )
    _, lines, kind = answer(sparse, "application/jsonlines", "application/jsonlines")
    assert [json.loads(line) for line in lines.splitlines()] == [{"score": far}, {"score": near}]
    rows = uniform(numpy.array([[0, 0, 0], [9, 0, 9]], numpy.float32))
    _, records, kind = answer(rows, RECORDIO, RECORDIO)
    found = [row.label["score"].values.tolist() for row in read_rows(records, "reply")]
    assert numpy.allclose(found, [[near], [far]])
    assert answer(b"0,0,0\n", "text/csv", "text/csv")[0] == 406
    assert answer(b"0,0,0\n", "text/plain", "")[0] == 415
    status, words, _ = answer(b"0,0\n", "text/csv", "")
    assert status == 400 and b"has 2 features, but the model takes 3" in words


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"1,2\n3,4\n", {"feature_dim": 4}, "train/a, line 1: the line has 2 features, but feature_dim is 4"),
        (b"1,2\n3,4\n", {}, "num_trees is 50, but the channel 'train' holds 2 record(s)"),
        (b"1,2\n3,nan\n", {}, "train/a, line 2: feature 2 is missing or NaN"),
        (b"1,2\n3,x\n", {}, "line 2"),
        (b"1,2\n3\n", {}, "line 2"),
        (b"", {}, "The files of channel 'train' are empty"),
    ],
)
def test_bad_data_is_refused_with_its_place(
    folder: Any, content: bytes, options: dict[str, object], message: str
) -> None:
    folder.channel("train", {"a": content}, "text/csv;label_size=0")
    with pytest.raises(ClientError) as raised:
        trained(folder, **{"feature_dim": 2, **options})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"0,1,2\n2,3,4\n", "text/csv;label_size=1", "test/a, line 2: the label is 2, but must be 1 for an"),
        (b"1,2\n", "text/csv;label_size=0", "label_size must be at least 1"),
        (uniform(normal(3, 2)), RECORDIO, "test/a, record 1: the record has no label named 'values'"),
    ],
)
def test_bad_labels_are_refused_with_their_place(
    folder: Any, content: bytes, kind: str, message: str
) -> None:
    folder.channel("train", {"a": uniform(normal(100, 2))}, RECORDIO)
    folder.channel("test", {"a": content}, kind)
    with pytest.raises(ClientError) as raised:
        trained(folder, feature_dim=2)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_trees": "49"}, "'49' is not in [50, 1000]"),
        ({"num_samples_per_tree": "2049"}, "'2049' is not in [1, 2048]"),
        ({"feature_dim": "10001"}, "'10001' is not in [1, 10000]"),
        ({"eval_metrics": '["f1"]'}, "is not a list of some of"),
        ({"trees": "50"}, "('trees' was unexpected)"),
    ],
)
def test_bad_hyperparameters_are_refused(values: dict[str, str], words: str) -> None:
    [error] = check_hyperparameters(SPEC, {"feature_dim": "3", **values})
    assert words in error


def test_what_the_sdk_sends_is_taken() -> None:
    sent = {"feature_dim": "1", "num_trees": "50", "num_samples_per_tree": "512", "mini_batch_size": "1000",
            "eval_metrics": '["accuracy", "precision_recall_fscore"]'}  # fmt: skip
    assert check_hyperparameters(SPEC, sent) == []
    assert find_algorithm("randomcutforest", "1") is SPEC


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("children", lambda children: children * 0),  # a circle
        ("children", lambda children: numpy.where(children >= 0, children + 1, children)),
        ("roots", lambda roots: roots[1:]),
        ("dimensions", lambda dimensions: dimensions + 3),
        ("points", lambda points: points[1:]),
        ("points", lambda points: points * numpy.float32(numpy.inf)),
        ("counts", lambda counts: counts * 0),
        ("cuts", lambda cuts: cuts.astype(float)),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_model_that_will_not_do_is_told(model: Path, name: str, change: Any) -> None:
    arrays = dict(read_array_file(model / "model_algo-1"))
    arrays[name] = change(arrays[name])
    (model / "model_algo-1").write_bytes(write_arrays(arrays))
    with pytest.raises(ClientError, match=r"trees that do not fit together|must hold 'cuts'"):
        load(model)


def test_a_model_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="holds no model file"):
        load(tmp_path)
    (tmp_path / "model_algo-1").write_bytes(b"forest")
    with pytest.raises(ClientError, match="cannot be read"):
        load(tmp_path)


def test_wide_records_fit(folder: Any) -> None:
    rows = load_digits().data.astype(numpy.float32).repeat(20, axis=1)
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    forest = trained(folder, feature_dim=1280)
    assert forest.width == 1280 and numpy.isfinite(forest.scores(rows[:50])).all()
