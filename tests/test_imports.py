"""The direction of imports, and what may stand in which file, read from the source of the package."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import service

ROOT: Final = Path(service.__file__).parent

LEAVES: Final = {"layout", "types", "errors", "systemerrors"}
ROOMS: Final[Mapping[str, int]] = {
    **dict.fromkeys(LEAVES, 0),
    **dict.fromkeys(
        (
            "background",
            "backends",
            "durable",
            "history",
            "imported",
            "initializers",
            "labels",
            "logs",
            "manifest",
            "metrics",
            "npyfile",
            "onnxgraph",
            "padding",
            "pooling",
            "protobuf",
            "reduction",
            "requestid",
            "rowtexts",
            "rowwriter",
            "switchfile",
            "table",
            "tablefolder",
            "texts",
            "textshares",
            "tokenlines",
            "unitlength",
            "version",
            "vocabulary",
        ),
        1,
    ),
    **dict.fromkeys(
        (
            "archive",
            "barrier",
            "controlsocket",
            "importers",
            "importing",
            "loader",
            "opened",
            "reaper",
            "registry",
            "settings",
            "spans",
            "steward",
            "store",
            "uploads",
            "watcher",
        ),
        2,
    ),
    **dict.fromkeys(("api", "dialects", "server"), 3),
    **dict.fromkeys(("cli", "client", "__main__"), 4),
}
"""Module or subpackage to its height. Imports go down or stay level; within a level they form no circle."""

STATUSES: Final = {*range(400, 432), *range(500, 512), 201, 204, 451}
STORE_FILES: Final = {
    **dict.fromkeys(("CURRENT", "history.jsonl", "labels.json"), "tablefolder"),
    ".switch.json": "switchfile",
    **dict.fromkeys(("manifest.json", "vectors.npy", "scales.npy", "vocabulary.txt", "token_weights.npy"), "version"),
}
HTTP_ROOMS: Final = ("api", "client", "dialects")


def dotted(file: Path) -> str:
    """`service/api/app.py` as `service.api.app`."""
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    return {dotted(file): ast.parse(file.read_bytes()) for file in sorted(ROOT.rglob("*.py"))}


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules of ours that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "service")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module and node.module.split(".")[0] == "service":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield whole if whole in modules() else node.module


def named(tree: ast.Module) -> Iterator[str]:
    """Modules that are named in strings and imported when used, like `service.backends.memory:open_rows`."""
    for text in strings(tree):
        module = text.partition(":")[0]
        if ":" in text and module in modules():
            yield module


def docstrings(tree: ast.Module) -> set[int]:
    """The nodes of strings that stand alone: docstrings of modules, classes, functions and constants."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def strings(tree: ast.Module) -> Iterator[str]:
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def room(module: str) -> str | None:
    """The module or subpackage directly below `service`; None for the package itself."""
    return module.split(".")[1] if "." in module else None


MODULES = list(modules())


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_room(module: str) -> None:
    assert room(module) is None or room(module) in ROOMS, "say in ROOMS how high it stands"


@pytest.mark.parametrize("module", MODULES)
def test_imports_never_go_up(module: str) -> None:
    own = room(module)
    if own is None:
        assert list(imports(modules()[module])) == []
        return
    for imported in (*imports(modules()[module]), *named(modules()[module])):
        other = room(imported)
        assert other is None or ROOMS[other] <= ROOMS[own], f"{module} imports {imported}"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in LEAVES])
def test_leaves_import_leaves_only(module: str) -> None:
    assert {room(imported) for imported in imports(modules()[module])} <= LEAVES


@pytest.mark.parametrize(
    ("upper", "others"),
    [("api", {"server", "dialects", "cli"}), ("dialects", {"server", "cli"}), ("server", {"cli"}), ("cli", set())],
)
def test_rooms_at_the_top_do_not_know_those_that_use_them(upper: str, others: set[str]) -> None:
    known = {room(i) for module in MODULES if room(module) == upper for i in imports(modules()[module])}
    assert known.isdisjoint(others)


def test_the_client_and_the_service_do_not_know_each_other() -> None:
    """A client needs numpy and httpx only; what both have in common are leaves."""
    for module, tree in modules().items():
        known = {room(imported) for imported in (*imports(tree), *named(tree))} - {None}
        if room(module) == "client":
            assert known <= {"client", *LEAVES}, module
        else:
            assert "client" not in known, module


def test_imports_form_no_circle() -> None:
    waiting = {module: set(imports(tree)) - {module} for module, tree in modules().items()}
    while ready := {module for module, needed in waiting.items() if not needed & waiting.keys()}:
        waiting = {module: needed for module, needed in waiting.items() if module not in ready}
    assert waiting == {}


# What may stand where


def http_statuses(tree: ast.Module) -> list[int]:
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in STATUSES
    ]


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) not in HTTP_ROOMS])
def test_no_http_status_stands_outside_the_rooms_of_http(module: str) -> None:
    tree = modules()[module]
    assert http_statuses(tree) == []
    assert [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "HTTPStatus"] == []


@pytest.mark.parametrize("module", [module for module in MODULES if module != "service.settings"])
def test_the_environment_is_read_in_the_settings_only(module: str) -> None:
    readers = {"environ", "environb", "getenv", "getenvb"}
    used = {node.attr for node in ast.walk(modules()[module]) if isinstance(node, ast.Attribute)}
    taken = {
        alias.name
        for node in ast.walk(modules()[module])
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for alias in node.names
    }
    assert (used | taken) & readers == set()


@pytest.mark.parametrize("module", MODULES)
def test_the_files_of_the_store_are_named_in_one_module_each(module: str) -> None:
    found = {text.rpartition("/")[2] for text in strings(modules()[module])} & set(STORE_FILES)
    assert {STORE_FILES[name] for name in found} <= {room(module)}


@pytest.mark.parametrize(("name", "owner"), list(STORE_FILES.items()))
def test_the_module_that_names_a_file_of_the_store_is_the_one_that_should(name: str, owner: str) -> None:
    assert name in set(strings(modules()[f"service.{owner}"]))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled_or_evaluated(module: str) -> None:
    tree = modules()[module]
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    taken = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    taken |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = [
        keyword.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "allow_pickle" and isinstance(keyword.value, ast.Constant)
    ]
    assert calls.isdisjoint({"eval", "exec"})
    assert taken.isdisjoint({"pickle", "cPickle", "marshal", "shelve", "dill", "joblib"})
    assert not any(allowed)
