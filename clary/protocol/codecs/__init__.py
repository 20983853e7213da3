"""The protocols of AWS, a file each, both ways, driven by the service models."""

from __future__ import annotations

from collections.abc import Mapping

from clary.protocol.codecs.codec import Codec
from clary.protocol.codecs.ec2 import Ec2Codec
from clary.protocol.codecs.json import JsonCodec
from clary.protocol.codecs.query import QueryCodec
from clary.protocol.codecs.rest_json import RestJsonCodec
from clary.protocol.codecs.rest_xml import RestXmlCodec
from clary.protocol.codecs.rpc_cbor import RpcCborCodec

__all__ = ["CODECS", "Codec", "codec_for"]

CODECS: Mapping[str, Codec] = {
    "json": JsonCodec(),
    "rest-json": RestJsonCodec(),
    "rest-xml": RestXmlCodec(),
    "query": QueryCodec(),
    "ec2": Ec2Codec(),
    "smithy-rpc-v2-cbor": RpcCborCodec(),
}
"""By the names that botocore's models have for the protocols."""


def codec_for(protocol: str) -> Codec:
    """The codec of ``protocol``, one of `CODECS`. Raises ``KeyError``."""
    return CODECS[protocol]
