"""Sends AWS host names to Clary, in the shells and commands that `clary env` and `clary run` set up.

The SageMaker SDKs build their STS client for ``https://sts.REGION.amazonaws.com`` whatever
``AWS_ENDPOINT_URL`` says. Python imports this file at start when its folder is on ``PYTHONPATH``; it makes
those names resolve to Clary's TLS listener, whose certificate ``AWS_CA_BUNDLE`` vouches for. Nothing is
sent to AWS from such a shell. It must run on any Python a client may use, so it is plain Python 3.6.
"""

import os
import sys
from typing import Any

_AWS_SUFFIXES = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


def _redirect_aws_names(address: str) -> None:
    import socket

    host, _, port = address.rpartition(":")
    resolve = socket.getaddrinfo

    def getaddrinfo(name: Any, service: Any, *arguments: Any, **options: Any) -> Any:
        text = name.decode("ascii", "replace") if isinstance(name, bytes) else name
        if text and text.lower().rstrip(".").endswith(_AWS_SUFFIXES):
            return resolve(host, int(port), *arguments, **options)
        return resolve(name, service, *arguments, **options)

    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]


def _run_the_hidden_sitecustomize() -> None:
    """Python runs one ``sitecustomize`` only: give the machine's own, further down the path, its turn."""
    from importlib.machinery import PathFinder

    here = os.path.dirname(os.path.abspath(__file__))
    path = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    found = PathFinder.find_spec("sitecustomize", path)
    if found is not None and found.loader is not None:
        found.loader.exec_module(sys.modules[__name__])


if os.environ.get("CLARY_TLS_ADDRESS"):
    _redirect_aws_names(os.environ["CLARY_TLS_ADDRESS"])
_run_the_hidden_sitecustomize()
