"""A user's functions for serving: ``model_fn``, ``input_fn``, ``predict_fn``, ``output_fn`` …"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from clary.frameworks.encoders import ANY, JSON, Unsupported, encode, is_text
from clary.frameworks.framework import FrameworkSpec
from clary.frameworks.source import CONTAINER_BASE

DEFAULT_PROGRAM = "inference.py"
_PLAIN = "text/plain"


class UnusableScript(Exception):
    """The user's code cannot serve; the message says why."""


class NoModelFunction(UnusableScript):
    """The user's code does not say how the model is loaded."""


@dataclass(frozen=True)
class Context:
    """What a function with a trailing ``context`` argument gets."""

    system_properties: Mapping[str, object] = field(default_factory=dict)
    request_content_type: str = ""
    accept_header: str = ""


class ScriptPredictor:
    """Loads the user's module and model once; may be called from several threads.

    A call takes body, content type and accept, and gives status, body and content type; what the user's
    functions raise becomes a 500, or the status that the exception's ``status_code`` names.
    """

    def __init__(self, framework: FrameworkSpec, model_directory: Path) -> None:
        """Raises `UnusableScript`, or what the user's code raises."""
        folder = str(model_directory)
        self._accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or JSON
        self._properties = {"model_dir": folder, "gpu_id": None}
        module = _user_module(model_directory)
        defaults = importlib.import_module(framework.handlers)

        def function(name: str, arguments: int) -> Callable[..., Any] | None:
            found = getattr(module, name, None)
            return None if found is None else _with_context(name, found, arguments)

        model = function("model_fn", 1)
        if model is None:
            raise NoModelFunction(
                f"{Path(module.__file__ or '').name} defines no model_fn(model_dir), which {framework.title} "
                "needs to load the model."
            )
        self._transform = function("transform_fn", 4)
        own = [name for name in ("input_fn", "predict_fn", "output_fn") if hasattr(module, name)]
        if self._transform is not None and own:
            raise UnusableScript(
                "Cannot use transform_fn implementation in conjunction with input_fn, predict_fn, and/or "
                f"output_fn implementation: the script defines {', '.join(own)} too."
            )
        self._input = function("input_fn", 2) or _with_context("input_fn", defaults.input_fn, 2)
        self._predict = function("predict_fn", 2) or _with_context("predict_fn", defaults.predict_fn, 2)
        self._output = function("output_fn", 2) or _with_context("output_fn", defaults.output_fn, 2)
        self._parameters = getattr(module, "execution_parameters_fn", None)
        context = Context(self._properties)
        before, after = function("pre_model_fn", 1), function("model_warmup_fn", 2)
        if before is not None:
            before(context, folder)
        self._model = model(context, folder)
        if after is not None:
            after(context, folder, self._model)

    def __call__(self, body: bytes, content_type: str, accept: str) -> tuple[int, bytes, str]:
        wanted = self._accept if not accept or accept == ANY else accept
        kind = content_type or JSON
        context = Context(self._properties, kind, wanted)
        try:
            payload: bytes | str = body.decode("utf-8") if is_text(kind) else body
            if self._transform is not None:
                result = self._transform(context, self._model, payload, kind, wanted)
            else:
                data = self._input(context, payload, kind)
                result = self._output(context, self._predict(context, data, self._model), wanted)
            return 200, *_reply(result, wanted)
        except Unsupported as refusal:
            return refusal.status, str(refusal).encode(), _PLAIN
        except UnicodeDecodeError as error:
            return 400, f"The body is not UTF-8 text: {error}".encode(), _PLAIN
        except Exception as error:  # noqa: BLE001 - the user's code: the caller is told, the worker lives on
            traceback.print_exc()
            status = getattr(error, "status_code", 500)
            text = f"{error}\n{''.join(traceback.format_exception(error))}"
            return status if isinstance(status, int) else 500, text.encode(), _PLAIN

    def execution_parameters(self) -> Mapping[str, object] | None:
        """What the script's ``execution_parameters_fn`` says of batch transforms; ``None`` without one."""
        found = self._parameters() if self._parameters is not None else None
        return found if isinstance(found, Mapping) else None


def _reply(result: Any, accept: str) -> tuple[bytes, str]:
    """What a function returned, as body and content type."""
    if hasattr(result, "get_data") and hasattr(result, "mimetype"):  # a web framework's response
        return bytes(result.get_data()), str(result.mimetype)
    body, content_type = result if isinstance(result, tuple) and len(result) == 2 else (result, accept)
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), str(content_type)
    return encode(body, str(content_type))


def _user_module(model_directory: Path) -> ModuleType:
    """The script ``SAGEMAKER_PROGRAM``: in the submit directory, the model's ``code`` or the task's.

    Raises `UnusableScript`, or what importing it raises.
    """
    program = os.environ.get("SAGEMAKER_PROGRAM") or DEFAULT_PROGRAM
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", CONTAINER_BASE))
    submitted = os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY", "").removeprefix("file://")
    places = [model_directory / "code", base / "code", model_directory]
    if submitted.startswith("/"):
        inside = submitted.removeprefix(CONTAINER_BASE)
        places.insert(0, Path(submitted) if inside == submitted else base / inside.lstrip("/"))
    for place in places:
        path = place / program
        if path.is_file():
            return _imported(path, place)
    looked = ", ".join(dict.fromkeys(map(str, places)))
    raise UnusableScript(f"The script {program} (SAGEMAKER_PROGRAM) is in none of {looked}.")


def _imported(path: Path, place: Path) -> ModuleType:
    sys.path[:0] = list(dict.fromkeys([str(path.parent), str(place)]))
    name = str(path.relative_to(place).with_suffix("")).replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UnusableScript(f"The script {path.name} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _with_context(name: str, function: Callable[..., Any], arguments: int) -> Callable[..., Any]:
    """``function`` called with a context first, which it gets as its last argument if it takes one more.

    Raises `UnusableScript` for another number of arguments.
    """

    def without(context: Context, *given: Any) -> Any:
        return function(*given)

    def passing(context: Context, *given: Any) -> Any:
        return function(*given, context)

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return without  # written in another language
    kinds = inspect.Parameter
    if any(each.kind is kinds.VAR_POSITIONAL for each in parameters):
        return without
    positional = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    needed = sum(parameter.default is kinds.empty for parameter in positional)
    if needed <= arguments <= len(positional):
        takes_context = len(positional) == arguments + 1 and positional[-1].name == "context"
        return passing if takes_context else without
    if needed == arguments + 1:
        return passing
    raise UnusableScript(f"{name} takes {len(positional)} arguments but {arguments} were given.")
