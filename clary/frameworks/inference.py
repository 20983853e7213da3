"""A user's functions for serving: ``model_fn``, ``input_fn``, ``predict_fn``, ``output_fn`` …"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from clary.frameworks.encoders import JSON, Unsupported
from clary.frameworks.framework import FrameworkSpec

DEFAULT_PROGRAM = "inference.py"
_TEXT_TYPES = ("application/json", "text/csv", "text/libsvm", "application/jsonlines")


class NoModelFunction(Exception):
    """The user's code lacks what serving needs; the message says what."""


class ScriptPredictor:
    """Loads the user's module and model once; `answer` may be called from several threads."""

    def __init__(self, framework: FrameworkSpec, model_directory: Path) -> None:
        """Raises `NoModelFunction`, or what the user's code raises."""
        module = _user_module(model_directory)
        defaults = importlib.import_module(framework.handlers)
        self._accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", JSON)
        model_function = getattr(module, "model_fn", None)
        if model_function is None:
            raise NoModelFunction(
                f"{module.__name__}.py defines no model_fn(model_dir), which {framework.title} needs."
            )
        self._transform = getattr(module, "transform_fn", None)
        own = [name for name in ("input_fn", "predict_fn", "output_fn") if hasattr(module, name)]
        if self._transform is not None and own:
            raise NoModelFunction(
                f"{module.__name__}.py defines transform_fn and also {', '.join(own)}: choose one."
            )
        self._input = _with_context(getattr(module, "input_fn", None) or defaults.input_fn, 2)
        self._predict = _with_context(getattr(module, "predict_fn", None) or defaults.predict_fn, 2)
        self._output = _with_context(getattr(module, "output_fn", None) or defaults.output_fn, 2)
        if self._transform is not None:
            self._transform = _with_context(self._transform, 4)
        self._model = _with_context(model_function, 1)(str(model_directory))

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[int, bytes, str]:
        """See `clary.frameworks.entrypoint.Predictor`; what the functions raise becomes a 500."""
        wanted = accept if accept and accept != "*/*" else self._accept
        media = content_type.split(";")[0].strip().lower() or JSON
        try:
            payload: bytes | str = body.decode() if media in _TEXT_TYPES else body
            if self._transform is not None:
                result = self._transform(self._model, payload, content_type or JSON, wanted)
            else:
                data = self._input(payload, content_type or JSON)
                result = self._output(self._predict(data, self._model), wanted)
            return 200, *_reply(result, wanted)
        except Unsupported as refusal:
            return refusal.status, str(refusal).encode(), "text/plain"
        except UnicodeDecodeError as error:
            return 400, f"The body is not UTF-8 text: {error}".encode(), "text/plain"
        except Exception as error:  # noqa: BLE001 - the user's code: the caller is told, the worker lives on
            traceback.print_exc()
            status = getattr(error, "status_code", 500)
            text = "".join(traceback.format_exception(error))
            return status if isinstance(status, int) else 500, text.encode(), "text/plain"


def _reply(result: Any, accept: str) -> tuple[bytes, str]:
    body, content_type = result if isinstance(result, tuple) and len(result) == 2 else (result, accept)
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, (bytes, bytearray)):
        return bytes(body), str(content_type)
    from clary.frameworks.encoders import encode

    return encode(body, str(content_type))


def _user_module(model_directory: Path) -> ModuleType:
    """The script: ``SAGEMAKER_PROGRAM`` in the model's ``code`` folder, or in the submit directory."""
    program = os.environ.get("SAGEMAKER_PROGRAM", DEFAULT_PROGRAM)
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    submitted = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
    places = [model_directory / "code", base / "code", model_directory]
    if submitted.startswith("/"):
        places.insert(0, Path(submitted.replace("/opt/ml", str(base), 1)))
    for place in places:
        path = place / program
        if path.is_file():
            sys.path.insert(0, str(place))
            name = program.removesuffix(".py").replace("/", ".")
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            return module
    raise NoModelFunction(
        f"The script {program} is neither in the model's code folder nor in the source directory."
    )


def _with_context(function: Callable[..., Any], arguments: int) -> Callable[..., Any]:
    """``function`` called with ``arguments`` arguments, and a context of ``None`` if it takes one more."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return function
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) == arguments + 1 and positional[-1].default is inspect.Parameter.empty:
        return lambda *given: function(*given, None)
    return function
