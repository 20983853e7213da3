"""The protocols of AWS, a file each, both ways."""

from __future__ import annotations

from clary.protocol.codecs.codec import Codec
from clary.protocol.codecs.json import JsonCodec
from clary.protocol.codecs.query import QueryCodec
from clary.protocol.codecs.rest_json import RestJsonCodec
from clary.protocol.codecs.rest_xml import RestXmlCodec
from clary.protocol.codecs.rpc_cbor import RpcCborCodec

__all__ = ["Codec", "codec_for"]

_CODECS: dict[str, Codec] = {
    "json": JsonCodec(),
    "rest-json": RestJsonCodec(),
    "rest-xml": RestXmlCodec(),
    "query": QueryCodec(),
    "smithy-rpc-v2-cbor": RpcCborCodec(),
}


def codec_for(protocol: str) -> Codec:
    """The codec of a protocol, named as botocore's models name it. Raises ``KeyError``."""
    return _CODECS[protocol]
