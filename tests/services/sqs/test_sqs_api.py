"""SQS's API as botocore sees it, in JSON, and in the forms that older clients send."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from clary.protocol import sqs_forms
from clary.testing import api_world
from clary.testing.event_world import EventApiWorld

ACCOUNT = "123456789012"
ARN = f"arn:aws:sqs:us-east-1:{ACCOUNT}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[EventApiWorld]:
    made = EventApiWorld(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["json", "query"])
def sqs(request: pytest.FixtureRequest, world: EventApiWorld, tmp_path: Path) -> Any:
    if request.param == "json":
        return world.client("sqs")
    # As botocore was before SQS spoke JSON: the same operations in forms and XML.
    loader = botocore.loaders.Loader()
    model = sqs_forms.in_forms(sqs_forms.as_served(loader.load_service_model("sqs", "service-2")))
    model["metadata"] |= {"protocol": "query", "protocols": ["query"]}
    for removed in ("awsQueryCompatible", "jsonVersion", "targetPrefix"):
        model["metadata"].pop(removed, None)
    for operation in model["operations"].values():
        if "output" in operation:
            operation["output"] = {**operation["output"], "resultWrapper": f"{operation['name']}Result"}
    folder = tmp_path / "models" / "sqs" / "2012-11-05"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_text(json.dumps(model))
    data = Path(loader.BUILTIN_DATA_PATH) / "sqs" / "2012-11-05"
    for name in ("endpoint-rule-set-1.json.gz", "endpoint-rule-set-1.json"):
        if (data / name).exists():
            shutil.copy(data / name, folder / name)
    session = botocore.session.Session()
    session.register_component(
        "data_loader",
        botocore.loaders.Loader([str(tmp_path / "models"), loader.BUILTIN_DATA_PATH], None, False, False),
    )
    client = session.create_client(
        "sqs",
        region_name=api_world.REGION,
        endpoint_url=api_world.ENDPOINT_URL,
        aws_access_key_id=world.root.access_key_id,
        aws_secret_access_key=world.root.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}),
    )
    client.meta.events.register("before-send.*", world._answer)
    assert client.meta.service_model.metadata["protocol"] == "query"
    return client


def refused(call: Any, **members: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**members)
    assert error.value.response["Error"]["Message"]
    return str(error.value.response["Error"]["Code"])


def make(sqs: Any, name: str = "q", **attributes: str) -> str:
    return str(sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])


def attributes_of(sqs: Any, url: str) -> dict[str, str]:
    return dict(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"])


def test_a_queue_is_made_found_changed_tagged_and_deleted(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "7"}, tags={"a": "b"})["QueueUrl"]
    assert url == f"http://127.0.0.1:8750/{ACCOUNT}/q"
    assert sqs.get_queue_url(QueueName="q")["QueueUrl"] == url
    assert make(sqs, VisibilityTimeout="7") == url
    assert make(sqs) == url
    assert (
        refused(sqs.create_queue, QueueName="q", Attributes={"VisibilityTimeout": "8"})
        == "QueueAlreadyExists"
    )
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"DelaySeconds": "3"})
    shown = attributes_of(sqs, url)
    assert shown["QueueArn"] == f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"
    assert (shown["VisibilityTimeout"], shown["DelaySeconds"]) == ("7", "3")
    assert (shown["MessageRetentionPeriod"], shown["ApproximateNumberOfMessages"]) == ("345600", "0")
    sqs.tag_queue(QueueUrl=url, Tags={"c": "d"})
    sqs.untag_queue(QueueUrl=url, TagKeys=["a"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"c": "d"}
    sqs.delete_queue(QueueUrl=url)
    assert refused(sqs.get_queue_url, QueueName="q") == "AWS.SimpleQueueService.NonExistentQueue"
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.send_message(QueueUrl=url, MessageBody="x")


def test_queues_are_listed_by_prefix_and_in_pages(sqs: Any) -> None:
    assert "QueueUrls" not in sqs.list_queues()
    urls = [make(sqs, name) for name in ("a1", "a2", "b1")]
    assert sqs.list_queues()["QueueUrls"] == urls
    assert sqs.list_queues(QueueNamePrefix="a")["QueueUrls"] == urls[:2]
    first = sqs.list_queues(MaxResults=2)
    assert sqs.list_queues(MaxResults=2, NextToken=first["NextToken"])["QueueUrls"] == urls[2:]


def test_a_message_goes_through_with_all_that_belongs_to_it(world: EventApiWorld, sqs: Any) -> None:
    url = make(sqs)
    attributes = {
        "text": {"DataType": "String", "StringValue": "wört"},
        "number": {"DataType": "Number.int", "StringValue": "-1.5e3"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    # botocore checks the digests of what it sent against those of the reply.
    sent = sqs.send_message(QueueUrl=url, MessageBody="körper <&>", MessageAttributes=attributes)
    assert sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)["Messages"][0].keys() == {
        "MessageId",
        "ReceiptHandle",
        "MD5OfBody",
        "Body",
    }
    (message,) = sqs.receive_message(QueueUrl=url, AttributeNames=["All"], MessageAttributeNames=["All"])[
        "Messages"
    ]
    assert (message["MessageId"], message["Body"]) == (sent["MessageId"], "körper <&>")
    assert message["MessageAttributes"] == attributes
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "2"
    assert message["Attributes"]["SentTimestamp"] == str(int(world.clock.now() * 1000))
    counts = attributes_of(sqs, url)
    assert counts["ApproximateNumberOfMessagesNotVisible"] == "1"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


def test_batches_tell_of_each_entry(sqs: Any) -> None:
    url = make(sqs)
    reply = sqs.send_message_batch(
        QueueUrl=url,
        Entries=[
            {"Id": "1", "MessageBody": "a"},
            {"Id": "2", "MessageBody": "b", "DelaySeconds": 901},
            {"Id": "3", "MessageBody": "c"},
        ],
    )
    assert [each["Id"] for each in reply["Successful"]] == ["1", "3"]
    (failed,) = reply["Failed"]
    assert (failed["Id"], failed["SenderFault"], failed["Code"]) == ("2", True, "InvalidParameterValue")
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"] for message in messages] == ["a", "c"]
    entries = [
        {"Id": "1", "ReceiptHandle": messages[0]["ReceiptHandle"], "VisibilityTimeout": 0},
        {"Id": "2", "ReceiptHandle": "nonsense", "VisibilityTimeout": 0},
    ]
    changed = sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)
    assert [each["Id"] for each in changed["Successful"]] == ["1"]
    assert changed["Failed"][0]["Code"] == "ReceiptHandleIsInvalid"
    (again,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert again["Body"] == "a"
    deleted = sqs.delete_message_batch(
        QueueUrl=url,
        Entries=[
            {"Id": "1", "ReceiptHandle": again["ReceiptHandle"]},
            {"Id": "2", "ReceiptHandle": messages[1]["ReceiptHandle"]},
        ],
    )
    assert [each["Id"] for each in deleted["Successful"]] == ["1", "2"]
    assert attributes_of(sqs, url)["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_a_batch_that_is_none_is_refused(sqs: Any) -> None:
    url = make(sqs)
    entry = {"Id": "1", "MessageBody": "a"}
    codes = [
        refused(sqs.send_message_batch, QueueUrl=url, Entries=entries)
        for entries in (
            [{**entry, "Id": str(number)} for number in range(11)],
            [entry, entry],
            [{**entry, "Id": "a b"}],
            [{**entry, "Id": str(number), "MessageBody": "x" * 600_000} for number in range(2)],
        )
    ]
    prefix = "AWS.SimpleQueueService."
    assert codes == [
        f"{prefix}TooManyEntriesInBatchRequest",
        f"{prefix}BatchEntryIdsNotDistinct",
        f"{prefix}InvalidBatchEntryId",
        f"{prefix}BatchRequestTooLong",
    ]


def test_the_dead_letter_queue_gets_what_nobody_could_handle(world: EventApiWorld, sqs: Any) -> None:
    dead = make(sqs, "dead")
    policy = {"deadLetterTargetArn": attributes_of(sqs, dead)["QueueArn"], "maxReceiveCount": "1"}
    url = make(sqs, VisibilityTimeout="0", RedrivePolicy=json.dumps(policy))
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]
    sqs.send_message(QueueUrl=url, MessageBody="bad")
    assert len(sqs.receive_message(QueueUrl=url)["Messages"]) == 1
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    (letter,) = sqs.receive_message(QueueUrl=dead, AttributeNames=["DeadLetterQueueSourceArn"])["Messages"]
    assert letter["Attributes"] == {"DeadLetterQueueSourceArn": attributes_of(sqs, url)["QueueArn"]}


def test_a_fifo_queue_keeps_order_and_takes_each_message_once(sqs: Any) -> None:
    url = make(sqs, "q.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    first = sqs.send_message(QueueUrl=url, MessageBody="a", MessageGroupId="g")
    assert (
        sqs.send_message(QueueUrl=url, MessageBody="a", MessageGroupId="g")["MessageId"] == first["MessageId"]
    )
    second = sqs.send_message(QueueUrl=url, MessageBody="b", MessageGroupId="g", MessageDeduplicationId="i")
    assert first["SequenceNumber"] < second["SequenceNumber"]
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"])["Messages"]
    assert [message["Body"] for message in found] == ["a", "b"]
    assert found[1]["Attributes"]["MessageDeduplicationId"] == "i"
    assert refused(sqs.send_message, QueueUrl=url, MessageBody="c") == "MissingParameter"
    assert attributes_of(sqs, url)["FifoQueue"] == "true"


def test_a_queue_is_purged(sqs: Any) -> None:
    url = make(sqs)
    sqs.send_message(QueueUrl=url, MessageBody="a")
    sqs.purge_queue(QueueUrl=url)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


@pytest.mark.parametrize(
    ("name", "attributes", "code"),
    [
        ("a b", {}, "InvalidParameterValue"),
        ("a" * 81, {}, "InvalidParameterValue"),
        ("a.fifo", {}, "InvalidParameterValue"),
        ("a", {"FifoQueue": "true"}, "InvalidParameterValue"),
        ("a", {"VisibilityTimeout": "43201"}, "InvalidAttributeValue"),
        ("a", {"VisibilityTimeout": "x"}, "InvalidAttributeValue"),
        ("a", {"ContentBasedDeduplication": "true"}, "InvalidAttributeName"),
        ("a", {"QueueArn": "x"}, "InvalidAttributeName"),
        ("a", {"Colour": "red"}, "InvalidAttributeName"),
        ("a", {"RedrivePolicy": "{}"}, "InvalidParameterValue"),
        ("a", {"RedrivePolicy": "["}, "InvalidParameterValue"),
        (
            "a",
            {"RedrivePolicy": json.dumps({"deadLetterTargetArn": f"{ARN}:a", "maxReceiveCount": 1})},
            "InvalidParameterValue",
        ),
        (
            "a",
            {"RedrivePolicy": json.dumps({"deadLetterTargetArn": f"{ARN}:d", "maxReceiveCount": 0})},
            "InvalidParameterValue",
        ),
        ("a", {"Policy": "no"}, "InvalidAttributeValue"),
    ],
)
def test_a_queue_that_will_not_do_is_refused(
    sqs: Any, name: str, attributes: dict[str, str], code: str
) -> None:
    assert refused(sqs.create_queue, QueueName=name, Attributes=attributes) == code
    assert "QueueUrls" not in sqs.list_queues()


def test_a_message_that_will_not_do_is_refused(sqs: Any) -> None:
    url = make(sqs, MaximumMessageSize="1024")

    def code(**members: Any) -> str:
        return refused(sqs.send_message, **{"QueueUrl": url, "MessageBody": "x", **members})

    def attribute(kind: str, **value: Any) -> dict[str, Any]:
        return {"MessageAttributes": {"a": {"DataType": kind, **value}}}

    assert code(MessageBody="") == "MissingParameter"
    assert code(MessageBody="x" * 1025) == "InvalidParameterValue"
    assert code(MessageBody="\x00") == "InvalidMessageContents"
    assert code(DelaySeconds=901) == "InvalidParameterValue"
    assert code(MessageDeduplicationId="x") == "InvalidParameterValue"
    assert code(**attribute("Text", StringValue="x")) == "InvalidParameterValue"
    assert code(**attribute("Number", StringValue="x")) == "InvalidParameterValue"
    assert code(**attribute("String", StringValue="")) == "InvalidParameterValue"
    assert code(**attribute("String", StringValue="x" * 1024)) == "InvalidParameterValue"
    assert code(QueueUrl="http://127.0.0.1/q") == "InvalidAddress"
    assert code(QueueUrl="http://127.0.0.1/999999999999/q") == "AWS.SimpleQueueService.NonExistentQueue"
    for members in ({"MaxNumberOfMessages": 11}, {"WaitTimeSeconds": 21}, {"VisibilityTimeout": -1}):
        assert refused(sqs.receive_message, QueueUrl=url, **members) == "InvalidParameterValue"
    assert refused(sqs.receive_message, QueueUrl=url, AttributeNames=["Colour"]) == "InvalidAttributeName"
    assert refused(sqs.delete_message, QueueUrl=url, ReceiptHandle="x") == "ReceiptHandleIsInvalid"
