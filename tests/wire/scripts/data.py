"""What the client scripts share: data, as any user would have it, and how a script reports."""

import io
import json
import os

import numpy
from sklearn.datasets import load_breast_cancer


def breast_cancer():
    """(train rows as CSV with the label first, test rows without label, test labels)."""
    data = load_breast_cancer()
    labels = 1 - data.target
    order = numpy.random.RandomState(7).permutation(len(labels))
    train, test = order[:400], order[400:]
    buffer = io.StringIO()
    numpy.savetxt(buffer, numpy.column_stack([labels[train], data.data[train]]), delimiter=",", fmt="%.6g")
    return buffer.getvalue(), data.data[test], labels[test]


def report(**facts):
    """Hand ``facts`` to the test that runs this script."""
    with open(os.environ["CLARY_TEST_REPORT"], "w") as file:
        json.dump(facts, file)
