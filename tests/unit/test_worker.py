"""When the worker trains, what it does with a trial, and that nothing that fails reaches the version in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from config.settings import Settings, load
from daemon import retrain, weights
from daemon.errors import Unreachable
from daemon.live import Live
from daemon.retrain import Attempt
from daemon.trials import Trial, Verdict
from daemon.weights import BLOCKED_PREFIX, CURRENT_KEY, TRIAL_KEY, ModelStore
from daemon.worker import IMPATIENT_S, LOOK_S, RETRY_S, Worker
from models import artifacts
from tests import examples
from tests.memory import Logs

GIVEN = ["model.hidden=8", "model.horizon=4", "model.context=16", "kafka.group_id=w", "retrain.every_s=1000"]
ENGINE = load(None, {}, GIVEN).engine()
(OLD, OLD_DATA), (NEW, NEW_DATA) = (examples.seeded_weights(ENGINE, scale) for scale in (1.0, 0.5))


class Bench:
    """A worker on topics in memory, with a clock and trainings that are set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
        self.settings: Settings = load(None, {}, [*GIVEN, *given])
        self.logs = Logs(self.settings.topics.readings, self.settings.topic("models"))
        self.now_s = 0.0
        self.attempt: Callable[[], Attempt] = lambda: Attempt("kept", "no better")
        self.cycles = 0
        self.told: list[tuple[str, dict[str, Any]]] = []
        monkeypatch.setattr(retrain, "attempt", self._attempt)
        monkeypatch.setattr(Live, "drifting", lambda _live: self.drifting)
        monkeypatch.setattr(Live, "verdict", lambda live: self.verdict if live.trial else None)
        self.drifting: list[int] = []
        self.verdict: Verdict | None = None
        self.write(OLD_DATA, OLD)
        self.worker = Worker(self.settings, lambda: self.logs, self._tell, lambda: self.now_s)  # type: ignore[arg-type, return-value]

    def _attempt(self, *_given: object) -> Attempt:
        self.cycles += 1
        return self.attempt()

    def _tell(self, kind: str, /, **facts: Any) -> None:
        if kind != "live":
            self.told.append((kind, facts))

    def write(self, data: bytes | None, current: str | None, **given: Any) -> None:
        weights.publish(self.settings, self.logs, data, current, **given)  # type: ignore[arg-type]

    def turn(self, after_s: float = 0.0) -> float:
        self.now_s += after_s
        return self.worker.turn()

    @property
    def current(self) -> str:
        return (self.logs.note(CURRENT_KEY) or b"").decode()

    @property
    def trial(self) -> Trial | None:
        return Trial.from_bytes(self.logs.note(TRIAL_KEY))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_cycle_runs_at_once_and_then_every_period(bench: Bench) -> None:
    """The worker's first turn trains; then only when the period is over."""
    assert bench.turn() == LOOK_S
    bench.turn(999)
    assert bench.cycles == 1
    bench.turn(1)
    assert bench.cycles == 2
    assert bench.told[0][1]["outcome"] == "kept"


def test_too_few_readings_are_looked_for_again_soon(bench: Bench) -> None:
    """First weights do not wait for a period."""
    bench.attempt = lambda: Attempt("too_few", "ten readings are not enough")
    bench.turn()
    bench.turn(IMPATIENT_S - 1)
    assert bench.cycles == 1
    bench.turn(1)
    assert bench.cycles == 2


def test_drift_begins_a_cycle_but_not_so_soon_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """An alarm of many streams trains before the period is over, once in `retrain.drift_pause_s`."""
    bench = Bench(monkeypatch, "retrain.drift_pause_s=100")
    bench.turn()
    bench.drifting = [0]
    bench.turn(99)
    assert bench.cycles == 1
    bench.turn(1)
    assert bench.cycles == 2
    bench.turn(99)
    assert bench.cycles == 2


def test_a_promoted_version_is_on_probation_and_stays(bench: Bench) -> None:
    """Artifact, version in force and trial are there together; passed, the trial is over; no cycle meanwhile."""
    bench.attempt = lambda: Attempt("promoted", "better", NEW_DATA)
    bench.turn()
    assert bench.current == NEW
    assert bench.trial == Trial(kind="probation", version=NEW, against=OLD, since={0: 0})
    bench.turn(5000)
    assert bench.cycles == 1
    bench.verdict = Verdict(True, "as good")
    bench.turn()
    assert (bench.trial, bench.current) == (None, NEW)
    bench.turn()
    assert bench.cycles == 2
    assert ("trial", {"kind": "probation", "passed": True, "reason": "as good"}) in bench.told


def test_a_worse_version_is_rolled_back_and_blocked(bench: Bench) -> None:
    """The version before serves again; the same weights are never put in force by the worker again."""
    bench.attempt = lambda: Attempt("promoted", "better", NEW_DATA)
    bench.turn()
    bench.verdict = Verdict(False, "worse")
    bench.turn()
    assert (bench.trial, bench.current) == (None, OLD)
    assert bench.logs.note(BLOCKED_PREFIX + NEW.encode()) == b"worse"
    bench.turn(1000)
    assert bench.current == OLD
    assert bench.told[-1][1]["outcome"] == "kept"
    assert "rolled back before" in bench.told[-1][1]["reason"]


def test_a_shadow_is_promoted_and_then_on_probation(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `retrain.shadow_readings` a candidate is published and tried before it serves."""
    bench = Bench(monkeypatch, "retrain.shadow_readings=1000")
    bench.attempt = lambda: Attempt("promoted", "better", NEW_DATA)
    bench.turn()
    assert bench.current == OLD
    assert bench.trial == Trial(kind="shadow", version=NEW, against=OLD, since={0: 0})
    assert bench.told[-1][1]["outcome"] == "shadow"
    bench.verdict = Verdict(True, "better")
    bench.turn()
    assert bench.current == NEW
    assert bench.trial is not None
    assert bench.trial.kind == "probation"


def test_a_shadow_that_fails_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What serves is not touched, and the candidate is blocked."""
    bench = Bench(monkeypatch, "retrain.shadow_readings=1000", "retrain.probation_readings=0")
    bench.attempt = lambda: Attempt("promoted", "better", NEW_DATA)
    bench.turn()
    bench.verdict = Verdict(False, "no better")
    bench.turn()
    assert (bench.trial, bench.current) == (None, OLD)
    assert bench.logs.note(BLOCKED_PREFIX + NEW.encode()) == b"no better"


def test_no_probation_is_kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `retrain.probation_readings = 0` a promoted version has no trial."""
    bench = Bench(monkeypatch, "retrain.probation_readings=0")
    bench.attempt = lambda: Attempt("promoted", "better", NEW_DATA)
    bench.turn()
    assert (bench.trial, bench.current) == (None, NEW)


def test_a_trial_outlives_the_worker(bench: Bench) -> None:
    """Killed in mid-trial: the next worker goes on with it, from the same offsets, and may end it."""
    bench.attempt = lambda: Attempt("promoted", "better", NEW_DATA)
    bench.turn()
    heir = Worker(bench.settings, lambda: bench.logs, bench._tell, lambda: 0.0)  # type: ignore[arg-type, return-value]
    heir.turn()
    assert bench.cycles == 1
    bench.verdict = Verdict(False, "worse")
    heir.turn()
    assert bench.current == OLD
    bench.turn()  # the one that was thought dead finds nothing left to do
    assert bench.current == OLD


def test_the_operator_wins(bench: Bench) -> None:
    """Somebody puts another version in force in mid-trial: the trial is given up, and that version stays."""
    bench.attempt = lambda: Attempt("promoted", "better", NEW_DATA)
    bench.turn()
    bench.write(None, "naive")
    bench.verdict = Verdict(False, "worse")
    bench.turn()
    assert bench.trial is None
    assert bench.current == "naive"


def test_of_two_workers_that_train_at_once_one_is_overtaken(bench: Bench) -> None:
    """A version that came in force during the training is not overwritten by one that was judged against the one before."""

    def while_another_promotes() -> Attempt:
        bench.write(None, "naive")
        return Attempt("promoted", "better", NEW_DATA)

    bench.attempt = while_another_promotes
    bench.turn()
    assert bench.current == "naive"
    assert bench.told[-1][1]["outcome"] == "overtaken"


def test_a_worker_that_is_fenced_while_it_publishes_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one takes the transactional id between begin and commit: the transaction is lost, the worker goes on."""
    bench.attempt = lambda: Attempt("promoted", "better", NEW_DATA)
    refresh = ModelStore.refresh

    def another_takes_over(store: ModelStore) -> None:
        refresh(store)
        if bench.cycles:
            bench.logs.producer("w-retrain")

    monkeypatch.setattr(ModelStore, "refresh", another_takes_over)
    assert bench.turn() == RETRY_S
    assert bench.current == OLD


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ZeroDivisionError(), MemoryError(), Unreachable("away")]
)
def test_what_fails_leaves_the_incumbent_in_force(bench: Bench, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a training raises: nothing is published, the log and a metric say why, and it is tried again."""

    def fails() -> Attempt:
        raise error

    bench.attempt = fails
    with caplog.at_level("WARNING"):
        assert bench.turn() == RETRY_S
    assert bench.current == OLD
    assert caplog.messages
    assert [facts["outcome"] for _, facts in bench.told] == ["failed"]
    bench.attempt = lambda: Attempt("promoted", "better", NEW_DATA)
    bench.turn(IMPATIENT_S)
    assert bench.current == NEW


def test_a_version_that_cannot_be_used_is_said_and_survived(bench: Bench) -> None:
    """Garbage in force (the daemon has refused it): the worker says so, and goes on as soon as that is mended."""
    bench.write(None, "0123456789abcdef")
    bench.turn()
    assert bench.told[-1][1]["outcome"] == "failed"
    bench.write(None, OLD)
    bench.turn(IMPATIENT_S)
    assert bench.told[-1][1]["outcome"] == "kept"


def test_notes_are_no_versions(bench: Bench) -> None:
    """Trial and blocked versions do not show up among the artifacts, and can be taken back."""
    bench.write(None, None, notes={TRIAL_KEY: b"{}", BLOCKED_PREFIX + b"a": b"worse", BLOCKED_PREFIX + b"b": b"worse"})
    bench.write(None, None, notes={BLOCKED_PREFIX + b"a": None})
    store = ModelStore(bench.settings, bench.logs)  # type: ignore[arg-type]
    store.refresh()
    assert set(store.versions) == {OLD}
    assert store.blocked == {"b"}
    assert store.current == OLD
    assert artifacts.version_of(store.versions[OLD]) == OLD
