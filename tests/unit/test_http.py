"""What probes see: the rules of health and the answers, without a socket."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Gauge

from daemon.http import CHECKS, Answer, Health, answer


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def healthy(clock: Clock | None = None) -> Health:
    health = Health(30.0, clock or Clock())
    for name in CHECKS:
        health.set(name, True)
    return health


def got(target: str, health: Health | None = None, accept: str = "") -> Answer:
    registry = CollectorRegistry()
    Gauge("recurd_probe", "A gauge.", registry=registry).set(7)
    return answer(target, accept, registry, health or healthy())


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
def test_live_while_the_loop_moves(path: str) -> None:
    """Liveness is the loop's beat within the time-out, and nothing else."""
    clock = Clock()
    health = Health(30.0, clock)
    health.set("kafka", False, "away")
    clock.now_s += 30.0
    assert got(path, health) == Answer(200, b"ok\n")
    clock.now_s += 1.0
    assert got(path, health) == Answer(503, f"[-]loop no progress for 31 s\n{path[1:]} failed\n".encode())
    health.beat()
    assert got(path, health).status == 200


def test_not_ready_at_start() -> None:
    """A daemon that has done nothing yet is not ready, and not draining."""
    answered = got("/readyz", Health(30.0))
    assert answered.status == 503
    assert b"[-]joined starting\n" in answered.body
    assert b"[+]draining ok\n" in answered.body


@pytest.mark.parametrize("name", CHECKS)
def test_ready_needs_every_check(name: str) -> None:
    """One check that fails says why and makes the daemon unready."""
    health = healthy()
    assert got("/readyz", health) == Answer(200, b"ok\n")
    health.set(name, False, "for a reason")
    answered = got("/readyz", health)
    assert answered.status == 503
    assert f"[-]{name} for a reason\n".encode() in answered.body


def test_verbose_lists_checks() -> None:
    """`?verbose` lists the checks of a ready daemon too."""
    assert got("/readyz?verbose").body == "".join(f"[+]{name} ok\n" for name in CHECKS).encode()


def test_unknown_check() -> None:
    """A check that nobody reads is a mistake in the program."""
    with pytest.raises(ValueError, match="no check 'joind'"):
        healthy().set("joind", True)


def test_metrics_in_the_format_asked_for() -> None:
    """Prometheus gets its text format, or OpenMetrics where it asks for it."""
    plain = got("/metrics")
    assert b"recurd_probe 7.0\n" in plain.body
    assert plain.content_type.startswith("text/plain")
    opened = got("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert opened.body.endswith(b"# EOF\n")
    assert opened.content_type.startswith("application/openmetrics-text")


@pytest.mark.parametrize("target", ["/", "/metrics/", "/../livez", "", "*", "/config"])
def test_nothing_else_is_served(target: str) -> None:
    """Every other path is 404."""
    assert got(target).status == 404
