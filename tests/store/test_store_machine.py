import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service import npyfile
from service.errors import Conflict, LabelNotFound, ServiceError, TableNotFound, VersionNotFound
from service.history import Activation, Deletion, Unloading, dump
from service.store import TableStore
from service.types import TableVersion
from tests.world import imported

TABLES = ("a", "b")
LABELS = ("canary", "stable")
Refusal: TypeAlias = type[ServiceError] | None

a_table = st.sampled_from(TABLES)
a_label = st.sampled_from(LABELS)
a_version = st.integers(1, 7)
a_number = st.integers(-1000, 1000)


@dataclass
class Model:
    """What a table should be: a few plain values."""

    versions: dict[int, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    activations: list[tuple[int, int | None]] = field(default_factory=list)
    unloaded: list[int] = field(default_factory=list)
    is_unloaded: bool = False
    deleted: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    left_by_the_dead: int = 0

    @property
    def exists(self) -> bool:
        """Whether the table's folder was ever made."""
        return bool(self.given or self.left_by_the_dead)

    @property
    def active(self) -> int | None:
        return self.activations[-1][0] if self.activations and not self.is_unloaded else None

    @property
    def before(self) -> int | None:
        if self.is_unloaded:
            return self.unloaded[-1]
        known = [version for pair in reversed(self.activations) for version in pair if version is not None]
        return next((version for version in known if version != self.active), None)

    @property
    def latest(self) -> int | None:
        return self.activations[-1][0] if self.activations else None

    def activate(self, version: int) -> None:
        if version != self.active:
            self.activations.append((version, self.active))
            self.is_unloaded = False

    def delete(self, version: int) -> None:
        del self.versions[version]
        self.deleted.append(version)

    def missing(self, version: int) -> Refusal:
        """How a verb must refuse a version that is not there."""
        if not self.versions:
            return TableNotFound
        return None if version in self.versions else VersionNotFound


class StoreMachine(RuleBasedStateMachine):
    """Drives a real store on disk and the model of it with the same verbs."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="store-machine-")
        self.root = Path(self.folder.name) / "store"
        self.store = TableStore(self.root)
        self.models = {name: Model() for name in TABLES}

    def teardown(self) -> None:
        self.folder.cleanup()

    def does(self, verb: Callable[[], object], refusal: Refusal) -> bool:
        """Runs a verb and checks that it is refused as it must be; True when it was done."""
        if refusal is None:
            verb()
            return True
        with pytest.raises(refusal):
            verb()
        return False

    @initialize(versions=st.integers(0, 5))
    def begin(self, versions: int) -> None:
        for number in range(versions):
            self.publish("a", number, activate=number % 3 == 0)

    @rule(table=a_table, number=a_number, activate=st.booleans())
    def publish(self, table: str, number: int, activate: bool) -> None:
        model = self.models[table]
        version = self.store.publish(table, imported([[number, number]]), activate=activate).version
        assert version not in model.given
        assert version > max(model.given, default=0)
        model.given.append(version)
        model.versions[version] = number
        if activate:
            model.activate(version)

    @rule(table=a_table, version=a_version)
    def activate(self, table: str, version: int) -> None:
        model = self.models[table]
        if self.does(lambda: self.store.activate(table, version), model.missing(version)):
            model.activate(version)

    @rule(table=a_table)
    def rollback(self, table: str) -> None:
        model = self.models[table]
        refusal: Refusal = None if model.before in model.versions else Conflict
        if self.does(lambda: self.store.rollback(table), refusal if model.versions else TableNotFound):
            assert model.before is not None
            model.activate(model.before)

    @rule(table=a_table)
    def unload(self, table: str) -> None:
        model = self.models[table]
        refusal: Refusal = Conflict if model.active is None else None
        if self.does(lambda: self.store.unload(table), refusal if model.versions else TableNotFound):
            assert model.active is not None
            model.unloaded.append(model.active)
            model.is_unloaded = True

    @rule(versions=st.tuples(a_version, a_version))
    def switch(self, versions: tuple[int, int]) -> None:
        targets = dict(zip(TABLES, versions, strict=True))
        missing = [self.models[table].missing(version) for table, version in targets.items()]
        refusal = next((refusal for refusal in (TableNotFound, VersionNotFound) if refusal in missing), None)
        if self.does(lambda: self.store.switch(targets, "switch"), refusal):
            for table, version in targets.items():
                self.models[table].activate(version)

    @rule(table=a_table, label=a_label, version=a_version)
    def label(self, table: str, label: str, version: int) -> None:
        model = self.models[table]
        if self.does(lambda: self.store.set_label(table, label, version), model.missing(version)):
            model.labels[label] = version

    @rule(table=a_table, label=a_label)
    def unlabel(self, table: str, label: str) -> None:
        model = self.models[table]
        refusal: Refusal = None if label in model.labels else LabelNotFound
        if self.does(lambda: self.store.delete_label(table, label), refusal if model.versions else TableNotFound):
            del model.labels[label]

    @rule(table=a_table, version=a_version)
    def delete(self, table: str, version: int) -> None:
        model = self.models[table]
        in_use = version in (model.active, *model.labels.values())
        refusal = model.missing(version) or (Conflict if in_use else None)
        if self.does(lambda: self.store.delete_version(table, version), refusal):
            model.delete(version)

    @rule(table=a_table, keep=st.integers(0, 6))
    def prune(self, table: str, keep: int) -> None:
        model = self.models[table]
        if not model.exists:
            self.does(lambda: self.store.prune(table, keep), TableNotFound)
            return
        newest = sorted(model.versions, reverse=True)[:keep]
        kept = {*newest, *model.labels.values(), model.latest, model.before}
        expected = [version for version in sorted(model.versions) if version not in kept]
        pruned = self.store.prune(table, keep)
        assert [removed.version for removed in pruned.versions] == expected
        assert len(pruned.staging) == model.left_by_the_dead
        for version in expected:
            model.delete(version)
        model.left_by_the_dead = 0
        model.given = model.given or [0]

    @rule(table=a_table, version=a_version)
    def verify(self, table: str, version: int) -> None:
        chosen = TableVersion(table, version)
        self.does(lambda: self.store.verify(chosen), self.models[table].missing(version))

    @rule(table=a_table)
    def a_publish_dies(self, table: str) -> None:
        model = self.models[table]
        staging = self.root / table / f".staging-{model.left_by_the_dead}"
        staging.mkdir(parents=True)
        (staging / "vectors.npy").write_bytes(b"half")
        model.left_by_the_dead += 1

    @precondition(lambda self: any(model.versions for model in self.models.values()))
    @rule(table=a_table, number=a_version)
    def an_activation_dies_before_its_commit(self, table: str, number: int) -> None:
        model = self.models[table]
        others = [version for version in model.versions if version != model.active]
        if others:
            line = Activation(
                version=others[number % len(others)], previous=model.active, time=datetime.now(UTC), by="killed"
            )
            history = TableStore(self.root).history(table)
            (self.root / table / "history.jsonl").write_text(dump([*history, line]))

    @precondition(lambda self: all(model.versions for model in self.models.values()))
    @precondition(lambda self: not (self.root / ".switch.json").exists())
    @rule(number=a_version)
    def a_switch_dies_after_its_commit(self, number: int) -> None:
        targets = {name: sorted(model.versions)[number % len(model.versions)] for name, model in self.models.items()}
        targets = {name: version for name, version in targets.items() if version != self.models[name].active}
        for name, version in targets.items():
            line = Activation(version=version, previous=self.models[name].active, time=datetime.now(UTC), by="killed")
            (self.root / name / "history.jsonl").write_text(dump([*self.store.history(name), line]))
        if targets:
            (self.root / ".switch.json").write_text(json.dumps({"tables": targets}))
        for name, version in targets.items():
            self.models[name].activate(version)

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        for store in (self.store, TableStore(self.root)):
            assert store.tables() == [name for name in TABLES if self.models[name].versions]
            for name in store.tables():
                check_table(store, name, self.models[name])


def check_table(store: TableStore, name: str, model: Model) -> None:
    """Versions, rows, active version, labels and history are those of the model."""
    assert store.versions(name) == sorted(model.versions)
    assert store.active_version(name) == model.active
    assert store.labels(name) == model.labels
    history = store.history(name)
    activations = [event for event in history if isinstance(event, Activation)]
    assert [(event.version, event.previous) for event in activations] == model.activations
    assert [event.unloaded for event in history if isinstance(event, Unloading)] == model.unloaded
    assert [event.deleted for event in history if isinstance(event, Deletion)] == model.deleted
    for version, number in model.versions.items():
        folder = store.version(TableVersion(name, version))
        assert np.array_equal(npyfile.map_rows(folder.vectors)[1], [[number, number]])


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
