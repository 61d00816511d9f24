"""From settings to a client's options."""

from __future__ import annotations

from typing import Any

import pytest

from config.settings import Settings
from daemon import brokers


def kafka(**keys: Any) -> Settings:
    return Settings.model_validate({"kafka": keys})


def test_plaintext_needs_nothing_more() -> None:
    """Without security settings the client is told the protocol alone."""
    assert brokers.security(kafka().kafka) == {"security_protocol": "PLAINTEXT"}


def test_security_settings_reach_the_client() -> None:
    """Every security setting has the client's own name, the password in the clear."""
    settings = kafka(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="recurd",
        sasl_password="pass",
        ssl_cafile="/ca.pem",
        ssl_certfile="/cert.pem",
        ssl_keyfile="/key.pem",
    )
    assert brokers.security(settings.kafka) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "recurd",
        "sasl_plain_password": "pass",
        "ssl_cafile": "/ca.pem",
        "ssl_certfile": "/cert.pem",
        "ssl_keyfile": "/key.pem",
    }


@pytest.mark.parametrize("transaction_timeout_ms", [4000, 7000, 10_000, 900_000])
@pytest.mark.parametrize("session_timeout_ms", [6000, 45_000])
def test_timeouts_nest(transaction_timeout_ms: int, session_timeout_ms: int) -> None:
    """Request, delivery and transaction time-outs rise strictly, and heartbeats fit three times into a session."""
    told = brokers.options(kafka(transaction_timeout_ms=transaction_timeout_ms, session_timeout_ms=session_timeout_ms))
    assert 0 < told["request_timeout_ms"] < told["delivery_timeout_ms"] < told["transaction_timeout_ms"] == transaction_timeout_ms
    assert 3 * told["heartbeat_interval_ms"] <= told["session_timeout_ms"] == session_timeout_ms


def test_names_reach_the_client() -> None:
    """Addresses, group, static member and input topic are those of the settings."""
    settings = Settings.model_validate(
        {"kafka": {"bootstrap_servers": "a:1,b:2", "group_id": "g", "instance_id": "i"}, "topics": {"readings": "plant"}}
    )
    told = brokers.options(settings)
    assert [told[name] for name in ("bootstrap_servers", "group_id", "instance_id", "topic")] == ["a:1,b:2", "g", "i", "plant"]


@pytest.mark.parametrize(
    ("servers", "protocol", "exposed"),
    [
        ("127.0.0.1:1,localhost:2,[::1]:3", "PLAINTEXT", []),
        ("127.0.0.1:1,kafka-2:2", "PLAINTEXT", ["kafka-2"]),
        ("10.0.0.7:1", "SASL_PLAINTEXT", ["10.0.0.7"]),
        ("kafka-1:1,10.0.0.7:1", "SSL", []),
    ],
)
def test_what_is_in_the_clear_is_known(servers: str, protocol: str, exposed: list[str]) -> None:
    """Other machines reached without TLS are named; this machine, and whatever is encrypted, is not."""
    more = {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"} if protocol.startswith("SASL") else {}
    settings = kafka(bootstrap_servers=servers, security_protocol=protocol, **more)
    assert brokers.in_the_clear(settings.kafka) == exposed
