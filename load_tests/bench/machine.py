"""Where a run was made, in words that name no host."""

import os
import platform
import re
from pathlib import Path


def machine() -> dict[str, str]:
    """Cores, processor, memory, kernel, Python."""
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert memory is not None
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "memory": f"{int(memory.group(1)) / (1 << 20):.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }


def _processor() -> str:
    """Arm's kernels do not say it."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return model.group(1) if model else platform.machine()
