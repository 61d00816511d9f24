"""The way to a broker: the port, and one module a client that implements it. Only `connect` knows which clients there are."""

from __future__ import annotations

from config.settings import Settings
from daemon.brokers.port import Broker


def connect(settings: Settings) -> Broker:
    """The broker of the settings, through their client. The client is imported here, so that commands without one stay quick."""
    from daemon.brokers.kafka_python import KafkaPythonBroker, options

    return KafkaPythonBroker(options(settings))
