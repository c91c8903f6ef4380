"""`python -m tests.cli.zygote`: a process with everything imported that a command imports, forked for each command.

So a command is a process of its own, with its own environment, folder and streams, and does not take the second that
its imports take. One request is a line of JSON on standard input, its answer one on standard output.
"""

import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from service.cli.app import COMMANDS, run

_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


def main() -> None:
    """Answers requests until there are no more."""
    for module in dict.fromkeys(COMMANDS.values()):
        import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(_command(request))
        _, status = os.waitpid(pid, 0)
        answers.write(f"{json.dumps(os.waitstatus_to_exitcode(status))}\n")
        answers.flush()


def _command(request: Mapping[str, Any]) -> int:
    """In the child: becomes the command, and gives the code that it ends with."""
    for name, number in _STANDARD.items():
        flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY
        os.dup2(os.open(request[name], flags), number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["service", *request["arguments"]]
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  (as the interpreter does)
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    main()
