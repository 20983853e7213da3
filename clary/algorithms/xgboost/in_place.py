"""Predicting from a dense matrix through the library's C interface.

``Booster.inplace_predict`` does the same, but spends more time on looking at its arguments than on the trees
of one row. Answers are equal to the last bit.
"""

from __future__ import annotations

import ctypes
import json
import math
from typing import Any

import numpy
import xgboost

_Sizes = ctypes.POINTER(ctypes.c_uint64)
_Floats = ctypes.POINTER(ctypes.c_float)


class DensePredictor:
    """Predicts with the rounds ``first`` to ``last`` of a booster (0, 0: all); threads may share it."""

    def __init__(self, booster: Any, first: int, last: int) -> None:
        self._booster = booster  # its handle lives as long as it does
        self._rounds = (first, last)
        library = getattr(xgboost.core, "_LIB", None)
        self._call = getattr(library, "XGBoosterPredictFromDense", None)
        self._settings = json.dumps(
            {
                "type": 0,
                "training": False,
                "iteration_begin": first,
                "iteration_end": last,
                "missing": math.nan,
                "strict_shape": False,
                "cache_id": 0,
            }
        ).encode()

    def __call__(self, rows: Any) -> Any:
        """``rows`` is (rows, columns) of float32; the answer (rows,) or (rows, classes).

        Raises ``XGBoostError``.
        """
        if self._call is None:  # another version of the library
            return self._booster.inplace_predict(rows, iteration_range=self._rounds, validate_features=False)
        rows = numpy.ascontiguousarray(rows, numpy.float32)
        address = rows.__array_interface__["data"][0]
        described = b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f4","version":3}' % (address, *rows.shape)
        sizes, dimensions, values = _Sizes(), ctypes.c_uint64(), _Floats()
        failed = self._call(
            self._booster.handle,
            described,
            self._settings,
            None,
            ctypes.byref(sizes),
            ctypes.byref(dimensions),
            ctypes.byref(values),
        )
        if failed:
            raise xgboost.core.XGBoostError(xgboost.core._LIB.XGBGetLastError().decode())
        shape = tuple(sizes[: dimensions.value])
        # A copy: the library writes its next answer to the same place.
        return numpy.ctypeslib.as_array(values, (math.prod(shape),)).copy().reshape(shape)
