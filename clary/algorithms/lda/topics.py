"""Topics, what a document says of them, and how they are refined until they tell the documents best.

A pass over the documents finds each one's mixture of topics given the topics, and adds up which words came of
which topic; that gives the next topics (expectation and maximisation, with the priors' pseudo-counts). Later
passes judge a word by all others only, without what it said itself before (collapsed variational inference,
Asuncion and others, 2009). Only words that occur cost anything, and beside documents and topics memory is
bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import csr_matrix

from clary.algorithms.lda.documents import Counts

Array = numpy.typing.NDArray[Any]

# Pseudo-count of every word in every topic: of 0.01, 0.05 and 0.1, what told held-out documents best.
WORD_PRIOR = 0.1
MIXTURE_STEPS = 100
MIXTURE_TOLERANCE = 1e-4  # of a share, below which a mixture has settled
_SMALLEST = 1e-30
_BLOCK_BYTES = 16 * 1024 * 1024


def mixtures(counts: Counts, alpha: Array, beta: Array) -> Array:
    """What each document is made of, (documents, topics) of shares that add up to one; that of a document
    without words is the prior's. ``alpha`` (topics,) and ``beta`` (topics, words) are as in the artifact."""
    alpha, words = alpha.astype(numpy.float32), _by_word(beta)
    found = numpy.empty((counts.shape[0], len(alpha)), numpy.float32)
    for start, end in _blocks(counts, len(alpha)):
        found[start:end] = _settled(counts[start:end], alpha, words)
    return found


def log_likelihood(counts: Counts, alpha: Array, beta: Array) -> float:
    """Of all words, given each document's mixture."""
    words, total = _by_word(beta), 0.0
    for start, end in _blocks(counts, len(alpha)):
        part = counts[start:end]
        likely = _likelihoods(part, _settled(part, alpha.astype(numpy.float32), words), words)
        total += float(part.data.astype(numpy.float64) @ numpy.log(likely, dtype=numpy.float64))
    return total


class Refinement:
    """Topics on their way: ``alpha`` (topics,) and ``beta`` (topics, words), whose rows add up to one."""

    def __init__(self, counts: Counts, beta: Array, alpha0: float) -> None:
        self.beta = beta
        topics = len(beta)
        self.alpha: Array = numpy.full(topics, alpha0 / topics)
        self._alpha0 = alpha0
        self._counts = counts
        self._words = float(counts.data.sum(dtype=numpy.float64))
        self._mixtures: Array = numpy.full((counts.shape[0], topics), 1 / topics, numpy.float32)
        # How many words of each document, and of each in the vocabulary, came of each topic.
        self._of_documents: Array = numpy.zeros_like(self._mixtures)
        self._of_words: Array = numpy.zeros(beta.T.shape)

    def step(self) -> float:
        """One pass. Gives the log likelihood of a word before it."""
        topics = len(self.beta)
        prior, words = numpy.float32(self._alpha0 / topics), _by_word(self.beta)
        came: Array = numpy.zeros_like(words, numpy.float64)
        told = 0.0
        for start, end in _blocks(self._counts, topics):
            part, shares = self._counts[start:end], self._mixtures[start:end]
            likely = _likelihoods(part, shares, words)
            told += float(part.data.astype(numpy.float64) @ numpy.log(likely, dtype=numpy.float64))
            ratios = csr_matrix((part.data / likely, part.indices, part.indptr), part.shape)
            came += ratios.T @ shares
            self._of_documents[start:end] = shares * (ratios @ words)
            self._mixtures[start:end] = _normal(self._of_documents[start:end] + prior)
        self._take(came * words)
        return told / self._words

    def collapsed_step(self) -> float:
        """As `step`, which must have been, but each word is judged by all others. Need not gain."""
        topics, vocabulary = self.beta.shape
        prior, word_prior = numpy.float32(self._alpha0 / topics), numpy.float32(WORD_PRIOR)
        words = self._of_words.astype(numpy.float32)
        totals = self._of_words.sum(axis=0).astype(numpy.float32)
        all_priors = numpy.float32(WORD_PRIOR * vocabulary)
        came: Array = numpy.zeros_like(self._of_words)
        told = 0.0
        for start, end in _blocks(self._counts, topics):
            part = self._counts[start:end]
            documents = numpy.repeat(numpy.arange(end - start), numpy.diff(part.indptr))
            own = self._of_documents[start:end]
            of_document, of_word = own[documents], words[part.indices]
            shares = (of_word + word_prior) / (totals + all_priors) * (of_document + prior)
            likely = numpy.maximum(shares.sum(axis=1), numpy.float32(_SMALLEST))
            lengths = own.sum(axis=1, dtype=numpy.float64) + self._alpha0
            logs = numpy.log(likely, dtype=numpy.float64) - numpy.log(lengths)[documents]
            told += float(part.data.astype(numpy.float64) @ logs)
            shares /= likely[:, None]
            others = numpy.maximum(of_word - shares, 0) + word_prior
            others /= numpy.maximum(totals - shares, 0) + all_priors
            others *= numpy.maximum(of_document - shares, 0) + prior
            others *= (part.data / numpy.maximum(others.sum(axis=1), numpy.float32(_SMALLEST)))[:, None]
            self._of_documents[start:end] = numpy.add.reduceat(others, part.indptr[:-1], axis=0)
            ones = numpy.ones(part.nnz, numpy.float32)
            which = csr_matrix((ones, part.indices, numpy.arange(part.nnz + 1)), (part.nnz, vocabulary))
            came += which.T @ others
        self._take(came)
        return told / self._words

    def _take(self, of_words: Array) -> None:
        self._of_words = of_words
        mass = of_words.sum(axis=0) + 1e-9
        self.alpha = self._alpha0 * mass / mass.sum()
        self.beta = _normal(of_words.T + WORD_PRIOR)


def _settled(counts: Counts, alpha: Array, words: Array) -> Array:
    shares = numpy.repeat(_normal(alpha[None, :]), counts.shape[0], axis=0)
    for _ in range(MIXTURE_STEPS):
        likely = _likelihoods(counts, shares, words)
        ratios = csr_matrix((counts.data / likely, counts.indices, counts.indptr), counts.shape)
        following = _normal(shares * (ratios @ words) + alpha)
        moved = numpy.abs(following - shares).max(initial=0.0)
        shares = following
        if moved < MIXTURE_TOLERANCE:
            break
    return shares


def _likelihoods(counts: Counts, shares: Array, words: Array) -> Array:
    """(occurring words,): of each, in the order of the counts."""
    documents = numpy.repeat(numpy.arange(counts.shape[0]), numpy.diff(counts.indptr))
    found: Array = numpy.einsum("ij,ij->i", shares[documents], words[counts.indices])
    return numpy.maximum(found, numpy.float32(_SMALLEST))


def _by_word(beta: Array) -> Array:
    return numpy.ascontiguousarray(beta.T, numpy.float32)


def _normal(rows: Array) -> Array:
    shares: Array = rows / rows.sum(axis=1, keepdims=True)
    return shares


def _blocks(counts: Counts, topics: int) -> Iterator[tuple[int, int]]:
    """Documents whose words, times the topics, fit in memory a few times: at least one."""
    most = max(1, _BLOCK_BYTES // (4 * topics))
    start, rows = 0, counts.shape[0]
    while start < rows:
        end = int(numpy.searchsorted(counts.indptr, counts.indptr[start] + most, side="right")) - 1
        end = min(max(end, start + 1), start + most, rows)
        yield start, end
        start = end
