"""Every built-in algorithm against what all of them must do."""

from __future__ import annotations

from typing import Any

import numpy
from sklearn.datasets import load_breast_cancer, load_iris

from clary.algorithms.algorithm import specs
from clary.testing.algorithm_conformance import AlgorithmConformance, Problem

IRIS, CANCER = load_iris(), load_breast_cancer()
FLOWERS = IRIS.data.astype(numpy.float32)
CELLS = CANCER.data[:150].astype(numpy.float32)
MALIGNANT = CANCER.target[:150].astype(numpy.float32)


class TestKMeans(AlgorithmConformance):
    algorithm = "kmeans"

    def problem(self) -> Problem:
        return Problem(FLOWERS, None, {"k": 3, "feature_dim": 4, "epochs": 2, "mini_batch_size": 40})


class TestPca(AlgorithmConformance):
    algorithm = "pca"

    def problem(self) -> Problem:
        return Problem(FLOWERS, None, {"num_components": 2, "feature_dim": 4, "mini_batch_size": 40})


class TestKnn(AlgorithmConformance):
    algorithm = "knn"

    def problem(self) -> Problem:
        options: dict[str, Any] = {"k": 3, "feature_dim": 4, "predictor_type": "classifier"}
        return Problem(FLOWERS, IRIS.target.astype(numpy.float32), {**options, "sample_size": 100})


class TestXgboost(AlgorithmConformance):
    algorithm = "xgboost"
    width_is_told = False

    def problem(self) -> Problem:
        return Problem(CELLS, MALIGNANT, {"num_round": 3, "objective": "binary:logistic", "nthread": 1})


class TestLinearLearner(AlgorithmConformance):
    algorithm = "linear-learner"

    def problem(self) -> Problem:
        options: dict[str, Any] = {"predictor_type": "binary_classifier", "feature_dim": 30, "epochs": 2}
        return Problem(CELLS, MALIGNANT, {**options, "num_models": 4, "mini_batch_size": 50})


class TestFactorizationMachines(AlgorithmConformance):
    algorithm = "factorization-machines"

    def problem(self) -> Problem:
        options: dict[str, Any] = {"predictor_type": "binary_classifier", "feature_dim": 30, "epochs": 2}
        return Problem(CELLS / 100, MALIGNANT, {**options, "num_factors": 2, "mini_batch_size": 50})


class TestRandomCutForest(AlgorithmConformance):
    algorithm = "randomcutforest"

    def problem(self) -> Problem:
        return Problem(FLOWERS, None, {"feature_dim": 4, "num_trees": 50, "num_samples_per_tree": 20})


class TestLda(AlgorithmConformance):
    algorithm = "lda"

    def problem(self) -> Problem:
        options: dict[str, Any] = {"num_topics": 2, "feature_dim": 30, "max_restarts": 2}
        return Problem(CELLS, None, {**options, "mini_batch_size": len(CELLS)})


def test_no_algorithm_is_left_out() -> None:
    tested = {each.algorithm for each in AlgorithmConformance.__subclasses__()}
    assert tested >= {spec.name for spec in specs()}
