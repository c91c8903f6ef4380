"""Kills a verb of the store at each of its steps, one store per step. Run as a program by `test_crash.py`.

A step is what a process asks of the system: every audit event of Python that opens, makes, renames or removes
something below the store, and every fsync. The process dies just before the step is done.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from service.imported import ImportedTable, RowBlock
from service.store import TableStore

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

TABLE: Final = "words"
OTHER: Final = "users"
ROWS: Final = np.arange(14, dtype=np.float32).reshape(7, 2)
NEW_ROWS: Final = ROWS + 100
TOKENS: Final = tuple("abcdefg")
_EVENTS: Final = ("open", "os.", "shutil.")
_MOST_STEPS: Final = 500


def new_table() -> ImportedTable:
    """What the verbs `publish*` publish, in two blocks."""
    blocks = [RowBlock(NEW_ROWS[:3], TOKENS[:3]), RowBlock(NEW_ROWS[3:], TOKENS[3:])]
    return ImportedTable(7, 2, blocks, padding_id=0)


VERBS: Final[dict[str, Callable[[TableStore], object]]] = {
    "publish": lambda store: store.publish(TABLE, new_table()),
    "publish_and_activate": lambda store: store.publish(TABLE, new_table(), activate=True),
    "activate": lambda store: store.activate(TABLE, 3),
    "rollback": lambda store: store.rollback(TABLE),
    "unload": lambda store: store.unload(TABLE),
    "switch": lambda store: store.switch({TABLE: 3, OTHER: 3}, "switch"),
    "delete_version": lambda store: store.delete_version(TABLE, 3),
    "set_label": lambda store: store.set_label(TABLE, "canary", 3),
    "delete_label": lambda store: store.delete_label(TABLE, "stable"),
    "prune": lambda store: store.prune(TABLE, keep=1),
}


def _die_at(step: int, root: Path) -> None:
    """From now on counts the steps of this process, and kills it at this one, counted from 0."""
    done = 0

    def count() -> None:
        nonlocal done
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(_EVENTS) and _below(root, arguments):
            count()

    synced = os.fsync

    def fsync(fd: "FileDescriptorLike") -> None:
        count()
        synced(fd)

    os.fsync = fsync
    sys.addaudithook(hook)


def _below(root: Path, arguments: tuple[object, ...]) -> bool:
    """Whether the first argument is a path in the store; a relative one belongs to a folder that was opened there."""
    path = arguments[0] if arguments else None
    return isinstance(path, str | Path) and (not Path(path).is_absolute() or Path(path).is_relative_to(root))


def _dies(verb: str, root: Path, step: int) -> bool:
    """Runs the verb in a child that dies at a step; False when it was through before."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _die_at(step, root)
            VERBS[verb](TableStore(root))
            status = 0
        except Exception:  # noqa: BLE001 - shown here; a fork must not run on into its parent's code
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return False
    raise RuntimeError(f"{verb}, step {step}: ended with the status {status}")


def main(verb: str, template: Path, work: Path) -> None:
    """Leaves `work/<k>`, a copy of the store `template` after the verb died at step k, for every k."""
    shutil.copytree(template, work / "warm-up")
    VERBS[verb](TableStore(work / "warm-up"))  # imports what the verb imports
    steps = 0
    while steps <= _MOST_STEPS:
        root = work / str(steps)
        shutil.copytree(template, root)
        if not _dies(verb, root, steps):
            break
        steps += 1
    sys.stdout.write(json.dumps({"verb": verb, "steps": steps}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
