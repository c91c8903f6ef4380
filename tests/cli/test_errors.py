"""What goes wrong: an exit code, one complaint on standard error, nothing on standard output, the store as it was."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import command, damage, default_store, nothing_changes
from tests.importers.samples import npy_bytes, zip_bytes
from tests.world import KERAS_ROWS, publish

USE, ABSENT, STATE, CONTENT, DAMAGED = 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Case:
    """A command line, the code it must end with, and what it must say."""

    arguments: str
    code: int
    said: str
    environment: dict[str, str] = field(default_factory=dict)


CREATE = "create --table new --num-embeddings 5 --embedding-dim 2"
EXPORT = "export words --format npy --output out.npy"

CASES: dict[str, Case] = {
    # Wrong use, wrong settings
    "an unknown command": Case("serv", USE, "serv"),
    "an unknown option": Case("list --colour", USE, "--colour"),
    "a missing option": Case("import good.npy", USE, "--table"),
    "a missing argument": Case("activate words", USE, "VERSION"),
    "a version that is no number": Case("activate words two", USE, "VERSION"),
    "version 0": Case("activate words 0", USE, "VERSION"),
    "a format that is none": Case("import good.npy --table new --format csv", USE, "npz"),
    "an initializer that is none": Case(f"{CREATE} --initializer he", USE, "he_normal"),
    "a negative padding_id": Case(f"{CREATE} --padding-id -1", USE, "--padding-id"),
    "an export format that is none": Case("export words --format csv --output out.csv", USE, "safetensors"),
    "a label without a version": Case("label words stable", USE, "--delete"),
    "verify of a version of no table": Case("verify --version 1", USE, "--version"),
    "a wrong setting": Case("list", USE, "EMBEDDING_PORT", {"EMBEDDING_PORT": "eighty"}),
    "a wrong option of serve": Case("serve --workers 0", USE, "workers"),
    # Not there
    "activate an unknown table": Case("activate nothing 1", ABSENT, "'nothing'"),
    "activate an unknown version": Case("activate words 9", ABSENT, "no version 9"),
    "show an unknown table": Case("show nothing", ABSENT, "'nothing'"),
    "verify an unknown table": Case("verify nothing", ABSENT, "'nothing'"),
    "verify an unknown version": Case("verify words --version 9", ABSENT, "no version 9"),
    "roll an unknown table back": Case("rollback nothing", ABSENT, "'nothing'"),
    "prune an unknown table": Case("prune nothing", ABSENT, "'nothing'"),
    "forget an unknown label": Case("label words stable --delete", ABSENT, "'stable'"),
    "export an unknown version": Case(f"{EXPORT} --version 9", ABSENT, "no version 9"),
    # The state of the store forbids it
    "nothing to roll back to": Case("rollback words", STATE, "no earlier activation"),
    "export without an active version": Case("export idle --format npy --output out.npy", STATE, "--version"),
    # A file or a value cannot be taken
    "a file that is not there": Case("import nothing.npy --table new", CONTENT, "nothing.npy: there is no such file"),
    "a folder": Case("import model_store --table new", CONTENT, "model_store"),
    "a file of no known format": Case("import notes.md --table new", CONTENT, "not recognised"),
    "a file of another format": Case("import notes.md --table new --format npz", CONTENT, "notes.md"),
    "a value that is not finite": Case("import nan.npy --table words", CONTENT, "nan.npy, row 5, column 1: nan"),
    "a ragged text": Case("import ragged.txt --table words", CONTENT, "ragged.txt, line 2: there are 1 numbers"),
    "several arrays": Case("import several.npz --table new", CONTENT, "--tensor"),
    "more rows than there are": Case("import good.npy --table new --rows 8", CONTENT, "there are 7"),
    "a vocabulary of another length": Case(
        "import good.npy --table new --vocabulary notes.md", CONTENT, "notes.md: there are 2 tokens for 7 rows"
    ),
    "a vocabulary that is a folder": Case(
        "import good.npy --table new --vocabulary model_store", CONTENT, "model_store"
    ),
    "a token twice": Case("import twice.txt --table new", CONTENT, "'hope' (ids 0, 1)"),
    "a name that is none": Case("import good.npy --table ../up", CONTENT, "'../up' is not a table name"),
    "a label name that is none": Case("label words Stable 1", CONTENT, "'Stable' is not a label name"),
    "a padding_id beyond": Case(f"{CREATE} --padding-id 5", CONTENT, "padding_id 5"),
    "a rule without its row": Case(f"{CREATE} --on-oov unk", CONTENT, "unk_id"),
    # Damaged
    "activate a damaged version": Case("activate damaged 2", DAMAGED, "damaged version 2 is damaged: vectors.npy"),
    "roll back to a damaged version": Case("rollback damaged", DAMAGED, "damaged version 2 is damaged"),
    "label a damaged version": Case("label damaged stable 2", DAMAGED, "SHA-256"),
    "export a damaged version": Case(
        "export damaged --format npy --output out.npy --version 2", DAMAGED, "damaged version 2 is damaged"
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and some files; no test changes a byte of it."""
    folder = tmp_path_factory.mktemp("world")
    store = default_store(folder)
    publish(store, "words", KERAS_ROWS)
    publish(store, "idle", KERAS_ROWS, activate=False)
    for _ in range(3):
        publish(store, "damaged", KERAS_ROWS)
    damage(store, "damaged", 2)
    nan = KERAS_ROWS.copy()
    nan[5, 1] = np.nan
    files = {
        "good.npy": npy_bytes(KERAS_ROWS),
        "nan.npy": npy_bytes(nan),
        "notes.md": b"# Notes\nnot a table\n",
        "ragged.txt": b"hope 1 2\nto 3\n",
        "twice.txt": b"hope 1 2\nhope 3 4\n",
        "several.npz": zip_bytes({"a.npy": npy_bytes(KERAS_ROWS), "b.npy": npy_bytes(KERAS_ROWS)}),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_an_error_has_its_exit_code_and_one_complaint_and_changes_nothing(world: Path, case: Case) -> None:
    with nothing_changes(world):
        ended = command(world, *case.arguments.split(), **case.environment)
    assert ended.code == case.code
    assert case.said in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    if case.code != USE:
        assert ended.err.startswith("error: ")


def test_json_leaves_errors_on_standard_error(world: Path) -> None:
    ended = command(world, "show", "nothing", "--json")
    assert (ended.code, ended.out, ended.err) == (3, "", "error: there is no table 'nothing'\n")


def test_a_store_that_is_a_file_is_an_error(world: Path) -> None:
    with nothing_changes(world):
        ended = command(world, *CREATE.split(), "--store", "notes.md")
    assert ended.code != 0
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert "notes.md" in ended.err


def test_an_output_in_a_folder_that_is_not_there_is_named_as_it_was_given(world: Path) -> None:
    ended = command(world, *EXPORT.replace("out.npy", "nowhere/out.npy").split())
    assert ended.code != 0
    assert ended.out == ""
    assert "nowhere/out.npy" in ended.err


def test_tokens_that_are_no_json_are_refused_and_not_quoted(tmp_path: Path) -> None:
    ended = command(tmp_path, "serve", EMBEDDING_ADMIN_TOKENS="alice=hush")
    assert (ended.code, ended.out) == (2, "")
    assert "EMBEDDING_ADMIN_TOKENS: must be a JSON object from owner to token" in " ".join(ended.err.split())
    assert "hush" not in ended.err
