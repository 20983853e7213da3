"""What a container's root leaves belongs to the user that runs Clary, even if that is not root."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.agent.runtimes.docker import Engine
from clary.agent.runtimes.ownership import foreign
from clary.testing.container_images import Images

NOBODY = 65534
pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that anybody reaches, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="clary-owned-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def as_nobody(groups: list[int], work: object) -> int:
    """The exit code of ``work`` done by a user that is not root."""
    assert callable(work)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - nothing of pytest may go on in the child
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_files_of_a_containers_root_are_handed_over(images: Images, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    address = images.address.removeprefix("unix://")
    group = Path(address).stat().st_gid
    image = images.make(
        {
            "/make": "#!/bin/sh\nset -e\nmkdir -m 700 /job/inner\necho 1 > /job/inner/secret\n"
            "chmod 600 /job/inner/*\n"
        }
    )
    ml = folder / "ml"
    ml.mkdir()
    for path in (folder, ml):
        os.chown(path, NOBODY, NOBODY)
    container = images.api.create_container(
        image,
        command=["/make"],
        host_config=images.api.create_host_config(binds=[f"{ml}:/job"], network_mode="none"),
    )["Id"]
    images.api.start(container)
    assert images.api.wait(container)["StatusCode"] == 0
    images.api.remove_container(container)
    image_id = images.api.inspect_image(image)["Id"]

    def take_over() -> None:
        assert foreign(ml)
        engine = Engine.connect(images.address)
        engine.hand_over(image_id, ml, folder, "job")
        engine.close()
        assert (ml / "inner/secret").read_text() == "1\n"
        assert not foreign(ml)
        shutil.rmtree(ml)

    assert as_nobody([group], take_over) == 0
    assert not ml.exists()


def test_a_user_that_may_not_use_the_engine_is_told_how(images: Images, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")

    def connect() -> None:
        with pytest.raises(Exception, match=r"permission denied.*usermod -aG docker"):
            Engine.connect(images.address)

    assert as_nobody([], connect) == 0
