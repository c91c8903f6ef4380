"""What begins a pod's own store, run for real: whenever its container is killed, a table is there whole or not."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml

from service.store import TableStore
from tests.deploy.manifests import KUBERNETES
from tests.world import KERAS_ROWS, publish

TABLES: Final = ("numbers", "words")
KILLED: Final = """#!/bin/sh
# Copies all but the rows, as one that is killed in the middle.
{cp} "$@"
[ "${{2##*/}}" != {table} ] || {{ find "$3" -name vectors.npy -delete; kill -9 $PPID; }}
"""


def seed(image: Path, seeded: Path, programs: Path | None = None) -> int:
    """Runs the init container over folders in the place of its own; programs in a folder of their own go first."""
    pod = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text())["spec"]["template"]
    (container,) = pod["spec"]["initContainers"]
    shell, option, script = container["command"]
    script = script.replace("/store", str(image)).replace("/seeded/", f"{seeded}/")
    path = f"{programs}:{os.environ['PATH']}" if programs else os.environ["PATH"]
    return subprocess.run([shell, option, script], env={"PATH": path}, check=False).returncode


def files(store: Path) -> dict[str, bytes]:
    """The files of the tables of a store, with what they hold; not the lock files, which come and go."""
    found = (path for table in TABLES for path in (store / table).rglob("[!.]*"))
    return {str(path.relative_to(store)): path.read_bytes() for path in found if path.is_file()}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The store of an image."""
    for table in TABLES:
        publish(TableStore(tmp_path / "image"), table, KERAS_ROWS)
    (tmp_path / "image" / "README.md").write_text("What this is.\n")
    return tmp_path / "image"


@pytest.fixture
def seeded(tmp_path: Path) -> Path:
    """The empty volume of a pod."""
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


def test_an_empty_volume_gets_the_tables_of_the_image(image: Path, seeded: Path) -> None:
    assert seed(image, seeded) == 0
    assert files(seeded) == files(image) != {}
    assert {path.name for path in seeded.iterdir()} == {*TABLES, "README.md", ".seeded"}


@pytest.mark.parametrize("table", TABLES)
def test_one_that_was_killed_in_the_middle_goes_on(table: str, image: Path, seeded: Path, tmp_path: Path) -> None:
    killing = tmp_path / "programs" / "cp"
    killing.parent.mkdir()
    killing.write_text(KILLED.format(cp="/bin/cp", table=table))
    killing.chmod(0o755)
    assert seed(image, seeded, killing.parent) == -9
    assert TableStore(seeded).tables() == list(TABLES[: TABLES.index(table)])
    assert seed(image, seeded) == 0
    assert files(seeded) == files(image)
    assert not (seeded / ".seeding").exists()


def test_a_store_that_was_changed_since_stays_as_it_is(image: Path, seeded: Path) -> None:
    seed(image, seeded)
    changed = TableStore(seeded)
    publish(changed, "words", KERAS_ROWS)
    (seeded / "README.md").unlink()
    before = files(seeded)
    assert seed(image, seeded) == 0
    assert files(seeded) == before
    assert not (seeded / "README.md").exists()


def test_what_seeding_leaves_does_not_disturb_the_store(image: Path, seeded: Path) -> None:
    seed(image, seeded)
    store = TableStore(seeded)
    store.sweep()
    store.remove_all_deleted()
    publish(store, "words", KERAS_ROWS)
    store.prune("words", 1)
    assert store.tables() == list(TABLES)
    assert (seeded / ".seeded").exists()


def test_an_image_without_tables_seeds_none(seeded: Path, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    assert seed(tmp_path / "image", seeded) == 0
    assert [path.name for path in seeded.iterdir()] == [".seeded"]
