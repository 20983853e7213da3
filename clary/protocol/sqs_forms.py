"""What botocore's model of SQS does not say.

How SQS spoke before it spoke JSON, and still does: older clients send forms and read XML, whose names are
here; newer ones find the codes that errors had then in a header of their own. And that ReceiveMessage takes
the names of messages' attributes where the model lists those of queues.
"""

from __future__ import annotations

import copy
from typing import Any

NAMESPACE = "http://queue.amazonaws.com/doc/2012-11-05/"

_PREFIX = "AWS.SimpleQueueService."
_CODES = {
    "BatchEntryIdsNotDistinct": f"{_PREFIX}BatchEntryIdsNotDistinct",
    "BatchRequestTooLong": f"{_PREFIX}BatchRequestTooLong",
    "EmptyBatchRequest": f"{_PREFIX}EmptyBatchRequest",
    "InvalidBatchEntryId": f"{_PREFIX}InvalidBatchEntryId",
    "MessageNotInflight": f"{_PREFIX}MessageNotInflight",
    "PurgeQueueInProgress": f"{_PREFIX}PurgeQueueInProgress",
    "QueueDeletedRecently": f"{_PREFIX}QueueDeletedRecently",
    "QueueDoesNotExist": f"{_PREFIX}NonExistentQueue",
    "QueueNameExists": "QueueAlreadyExists",
    "TooManyEntriesInBatchRequest": f"{_PREFIX}TooManyEntriesInBatchRequest",
    "UnsupportedOperation": f"{_PREFIX}UnsupportedOperation",
}
# The elements of lists that are not called as their shapes are.
_ITEMS = {
    "AttributeNameList": "AttributeName",
    "MessageSystemAttributeList": "MessageSystemAttributeName",
    "MessageAttributeNameList": "MessageAttributeName",
    "QueueUrlList": "QueueUrl",
    "TagKeyList": "TagKey",
    "AWSAccountIdList": "AWSAccountId",
    "ActionNameList": "ActionName",
    "StringList": "StringListValue",
    "BinaryList": "BinaryListValue",
}
# Maps: the names of an entry, of its key and of its value.
_MAPS = {
    "QueueAttributeMap": ("Attribute", "Name", "Value"),
    "MessageSystemAttributeMap": ("Attribute", "Name", "Value"),
    "MessageBodyAttributeMap": ("MessageAttribute", "Name", "Value"),
    "MessageBodySystemAttributeMap": ("MessageSystemAttribute", "Name", "Value"),
    "TagMap": ("Tag", "Key", "Value"),
}


def as_served(document: dict[str, Any]) -> dict[str, Any]:
    """The model with the codes that errors had, and any name for an attribute: SQS refuses in own words."""
    document = copy.deepcopy(document)
    shapes = document["shapes"]
    for name, code in _CODES.items():
        shapes[name]["error"] = {"code": code, "httpStatusCode": 400, "senderFault": True}
    for name in ("QueueAttributeName", "MessageSystemAttributeName"):
        shapes[name].pop("enum", None)
    return document


def in_forms(document: dict[str, Any]) -> dict[str, Any]:
    """The model with the names of forms and XML."""
    document = copy.deepcopy(document)
    document["metadata"]["xmlNamespace"] = NAMESPACE
    shapes = document["shapes"]
    for shape in shapes.values():
        if shape["type"] == "list":
            member = shape["member"]
            member["locationName"] = member["shape"]
    for name, item in _ITEMS.items():
        shapes[name]["member"]["locationName"] = item
    for name, (_, key, value) in _MAPS.items():
        shapes[name]["key"]["locationName"] = key
        shapes[name]["value"]["locationName"] = value
    for shape in shapes.values():
        for member in shape.get("members", {}).values():
            if member["shape"] in _MAPS:
                member["locationName"] = _MAPS[member["shape"]][0]
    return document
