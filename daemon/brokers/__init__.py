"""The way to a broker: the port, and one module a client that implements it. Only `connect` knows which clients there are."""

from __future__ import annotations

import ipaddress
from typing import Any

from config.settings import KafkaSettings, Settings
from daemon.brokers.port import Broker

#: One request of a producer; the rest of a delivery's time is for repeating it.
REQUEST_TIMEOUT_MS = 4000
#: A record is sent within this time or its transaction is in doubt.
DELIVERY_TIMEOUT_MS = 6000
HEARTBEAT_INTERVAL_MS = 3000


def connect(settings: Settings) -> Broker:
    """The broker of the settings, through their client. No connection is made yet.

    The client is imported here, so that commands without a broker stay quick.
    """
    from daemon.brokers.kafka_python import ClientOptions, KafkaPythonBroker

    return KafkaPythonBroker(ClientOptions(**options(settings)))


def options(settings: Settings) -> dict[str, Any]:
    """What every client is told, by the names of `ClientOptions`. Request, delivery and transaction time-outs nest."""
    kafka = settings.kafka
    delivery_ms = min(DELIVERY_TIMEOUT_MS, kafka.transaction_timeout_ms * 3 // 5)
    return {
        "bootstrap_servers": kafka.bootstrap_servers,
        "group_id": kafka.group_id,
        "instance_id": kafka.instance_id,
        "topic": settings.topics.readings,
        "session_timeout_ms": kafka.session_timeout_ms,
        "heartbeat_interval_ms": min(HEARTBEAT_INTERVAL_MS, kafka.session_timeout_ms // 3),
        "max_poll_records": kafka.max_poll_records,
        "transaction_timeout_ms": kafka.transaction_timeout_ms,
        "delivery_timeout_ms": delivery_ms,
        "request_timeout_ms": min(REQUEST_TIMEOUT_MS, delivery_ms * 2 // 3),
        "replication_factor": kafka.replication_factor,
        "extra": security(kafka),
    }


def security(kafka: KafkaSettings) -> dict[str, Any]:
    """The client's security options: only those that are set."""
    named = {
        "security_protocol": kafka.security_protocol,
        "sasl_mechanism": kafka.sasl_mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        "ssl_cafile": kafka.ssl_cafile,
        "ssl_certfile": kafka.ssl_certfile,
        "ssl_keyfile": kafka.ssl_keyfile,
    }
    return {name: value if name.startswith("sasl") else str(value) for name, value in named.items() if value is not None}


def in_the_clear(kafka: KafkaSettings) -> list[str]:
    """Hosts of the settings that are other machines and are reached without TLS."""
    if kafka.security_protocol in ("SSL", "SASL_SSL"):
        return []
    hosts = [server.strip().rpartition(":")[0].strip("[]") for server in kafka.bootstrap_servers.split(",")]
    return [host for host in hosts if not _is_loopback(host)]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
