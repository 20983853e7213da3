"""Trains LDA: topics by the moments of words' occurring together, refined until they tell the documents best.

The moments alone find the topics of documents that were drawn of topics; of real text, which was not, they
leave much untold. Passes over the documents from random topics tell real text as well, but miss
topics. Each makes up for the other: see bench/algorithms.py.
"""

from __future__ import annotations

import time

import numpy
from threadpoolctl import threadpool_limits

from clary.algorithms.faults import ClientError
from clary.algorithms.job import Job
from clary.algorithms.lda.documents import Counts, read_documents
from clary.algorithms.lda.model import Model
from clary.algorithms.lda.spec import SPEC
from clary.algorithms.lda.spectral import Attempts, first_topics
from clary.algorithms.lda.topics import Refinement, log_likelihood
from clary.algorithms.log_lines import LogLines

SEED = 20_171_129
MOST_PASSES = 100
FIRST_PASSES = 5  # not collapsed: towards where to settle
SMALLEST_GAIN = 1e-5  # of a word's log likelihood by a pass: below it, topics have settled
_PASSES_PER_LINE = 10


def train(job: Job) -> None:
    """Train and write ``model/model_algo-1``.

    Raises `ClientError`, and `NothingTrained` if told to stop while reading.
    """
    with threadpool_limits(1):  # the same model on any machine
        _Training(job).run()


class _Training:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._lines = LogLines(job, "AWS/LDA")
        values = SPEC.complete(job.hyperparameters)
        self._topics = int(values["num_topics"])
        self._words = int(values["feature_dim"])
        self._documents = int(values["mini_batch_size"])
        self._alpha0 = float(values["alpha0"])
        self._iterations = int(values["max_iterations"])
        self._attempts = Attempts(int(values["max_restarts"]), self._iterations, float(values["tol"]))

    def run(self) -> None:
        began = time.monotonic()
        counts = self._read()
        model, told, passes = self._learn(counts)
        model.save(self._job.model)
        self._lines.metrics({
            "Total Records Seen": counts.shape[0], "Topics Of Moments": told, "Passes": passes,
        })  # fmt: skip
        self._lines.throughput("train", counts.shape[0], time.monotonic() - began)
        self._score("train", counts, model)
        if self._job.channel("test") is None:
            self._lines.say("Test data is not provided.")
        elif not self._job.stop_requested:
            self._score("test", read_documents(self._job, "test", self._words), model)

    def _read(self) -> Counts:
        counts = read_documents(self._job, "train", self._words)
        found = counts.shape[0]
        if found < self._topics:
            raise ClientError(
                f"num_topics is {self._topics}, but the channel 'train' holds {found} document(s); give more "
                "documents, or find fewer topics."
            )
        if found != self._documents:
            self._lines.say(
                f"mini_batch_size is {self._documents}, but the channel 'train' holds {found} documents: all "
                "of them are trained on",
                "WARNING",
            )
        return counts

    def _learn(self, counts: Counts) -> tuple[Model, int, int]:
        """The model; how many topics the moments told, and passes since."""
        beta, told = first_topics(
            counts, self._topics, self._alpha0, self._attempts, lambda: self._job.stop_requested, SEED
        )
        if told < self._topics:
            self._lines.say(f"Moments tell {told} of {self._topics} topics; the others begin as documents")
        refinement = Refinement(counts, beta, self._alpha0)
        most = min(MOST_PASSES, self._iterations)
        before, passes = -numpy.inf, 0
        while passes < most:
            likely = refinement.step() if passes < FIRST_PASSES else refinement.collapsed_step()
            passes += 1
            settled = passes > FIRST_PASSES + 1 and abs(likely - before) < SMALLEST_GAIN
            before = likely
            if settled or self._job.stop_requested:
                break
            if passes % _PASSES_PER_LINE == 0:
                self._lines.progress(passes / most)
        if self._job.stop_requested:
            self._lines.say(f"Told to stop: keeping the topics as they are after {passes} pass(es)")
        elif passes % _PASSES_PER_LINE or passes < most:
            self._lines.progress(1.0)
        return Model(refinement.alpha, refinement.beta), told, passes

    def _score(self, split: str, counts: Counts, model: Model) -> None:
        """Tell the log likelihood of a word."""
        words = float(counts.data.sum(dtype=numpy.float64))
        value = log_likelihood(counts, model.alpha, model.beta) / words
        self._lines.quality(f"{split} pwll", value, "Maximize")
        self._lines.score(split, "pwll", value)
