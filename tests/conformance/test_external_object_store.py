"""The driver for an external S3 keeps the contract; the external S3 is a Clary of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from clary.objects.object_store import ObjectInfo, ObjectStore
from clary.objects.s3.store import S3ObjectStore
from clary.running_server import find_running
from clary.testing.object_store_conformance import ObjectStoreConformance
from clary.testing.server import ServerProcess

ACCOUNT = "111122223333"


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("external")) as server:
        yield server


@pytest.mark.slow
@pytest.mark.xdist_group("external_s3")
class TestS3ObjectStore(ObjectStoreConformance):
    @pytest.fixture(autouse=True)
    def server(self, external: ServerProcess) -> Iterator[None]:
        self.external = external
        yield
        client = external.client("s3")
        for bucket in client.list_buckets()["Buckets"]:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
                for item in page.get("Contents", []):
                    client.delete_object(Bucket=bucket["Name"], Key=item["Key"])
            client.delete_bucket(Bucket=bucket["Name"])

    def test_a_local_path_holds_the_bytes_of_its_version(self) -> None:
        """Objects elsewhere are no files here, and the driver says so."""

        async def facts(store: ObjectStore) -> None:
            await store.create_bucket("local-path", account=ACCOUNT, region="us-east-1")
            info = ObjectInfo("local-path", "k", 1, "etag", 0.0)
            assert list(await store.local_paths([info])) == [None]

        self.run(facts)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[ObjectStore]:
        running = find_running(self.external.data)
        assert running is not None
        root = json.loads((self.external.data / "credentials.json").read_text())
        store = S3ObjectStore(
            endpoint_url=running.endpoint_url,
            region="us-east-1",
            access_key_id=root["access_key_id"],
            secret_access_key=root["secret_access_key"],
            account=ACCOUNT,
        )
        yield store
        await store.close()
