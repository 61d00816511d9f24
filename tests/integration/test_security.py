"""Kafka by SCRAM over TLS and by client certificate, with the rights of deploy/kafka/acls.sh and no more; secrets stay secret."""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from daemon.brokers import dev
from daemon.brokers.dev import DevBroker
from daemon.errors import EXIT_NO_RESTART
from tests.harness import Command, Daemon, Topics, recurd, running, wait_until

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python loads its schemas by importlib's old read_text
    from kafka.admin import (
        ACL,
        ACLOperation,
        ACLPermissionType,
        ACLResourcePatternType,
        ResourcePattern,
        ResourceType,
        ScramMechanism,
        UserScramCredentialUpsertion,
    )

DEPLOY = Path(__file__).parents[2] / "deploy"
PASSWORD = "not-for-the-log-7f3a"
WEB_PASSWORD = "nor-this-91c2"
NETWORK = {"model.hidden": 16, "model.horizon": 8, "model.context": 32}

pytestmark = [pytest.mark.broker, pytest.mark.slow]


class Secured(NamedTuple):
    """A broker that asks who is there, its ports, and a folder of keys and certificates."""

    topics: Topics  # by the port that asks nothing, where everybody may do everything
    scram: str
    mutual: str
    keys: Path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away authority, and certificates by it for the broker and for a client called `worker`."""
    folder = tmp_path_factory.mktemp("keys")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2"
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name in ("broker", "recurd"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-out", f"{name}.pem", "-extfile", "names",
        )  # fmt: skip
    (folder / "broker.store").write_text((folder / "broker.key").read_text() + (folder / "broker.pem").read_text())
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "web-password").write_text(f"{WEB_PASSWORD}\n")
    return folder


@pytest.fixture(scope="module")
def secured(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    free: list[int] = []
    while len(free) < 3:
        free.append(dev._free_port(free))
    plain, scram, mutual = free
    listeners = f"PLAINTEXT://127.0.0.1:{plain},SCRAM://127.0.0.1:{scram},MUTUAL://127.0.0.1:{mutual}"
    controller = dev._free_port(free)
    overrides = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SCRAM:SASL_SSL,MUTUAL:SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": f"{keys}/broker.store",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": f"{keys}/ca.pem",
        "listener.name.mutual.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with DevBroker(tmp_path_factory.mktemp("broker"), port=plain, overrides=overrides) as broker:
        topics = Topics(broker.bootstrap, "recurd", "readings", 1)
        with topics.admin() as admin:
            admin.create_topics({"readings": {"num_partitions": 1, "replication_factor": -1}})
            admin.wait_for_topics(["readings"])
            for user in ("recurd", "recurd-retrain"):
                password = UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_512, PASSWORD)
                assert admin.alter_user_scram_credentials([password]) == {user: None}
            admin.create_acls(granted())
        Command({**topics.settings, **NETWORK})("models", "list")  # makes recurd's topics, by one who may
        yield Secured(topics, f"127.0.0.1:{scram}", f"127.0.0.1:{mutual}", keys)


def granted() -> list[Any]:
    """The rights that deploy/kafka/acls.sh gives; and those of a certificate's name."""
    found = []
    for line in (DEPLOY / "kafka" / "acls.sh").read_text("utf-8").splitlines():
        if not line.startswith("acl "):
            continue
        user = line.split()[1]
        kind, name = re.findall(r"--(topic|group|transactional-id) (\S+)", line)[0]
        pattern = ACLResourcePatternType.PREFIXED if "prefixed" in line else ACLResourcePatternType.LITERAL
        resource = ResourcePattern(ResourceType[kind.upper().replace("-", "_")], name, pattern)
        for operation in re.findall(r"--operation (\w+)", line):
            word = ACLOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()]
            for principal in (f"User:{user}", *(["User:CN=recurd"] if user == "recurd" else [])):
                found.append(ACL(principal, "*", word, ACLPermissionType.ALLOW, resource))
    assert len(found) > 20
    return found


def by_scram(secured: Secured, user: str = "recurd") -> dict[str, Any]:
    return {
        "kafka.bootstrap_servers": secured.scram,
        "kafka.security_protocol": "SASL_SSL",
        "kafka.sasl_mechanism": "SCRAM-SHA-512",
        "kafka.sasl_username": user,
        "kafka.sasl_password_file": secured.keys / "password",
        "kafka.ssl_cafile": secured.keys / "ca.pem",
        "kafka.create_topics": "false",
    }


def by_certificate(secured: Secured) -> dict[str, Any]:
    return {
        "kafka.bootstrap_servers": secured.mutual,
        "kafka.security_protocol": "SSL",
        "kafka.ssl_cafile": secured.keys / "ca.pem",
        "kafka.ssl_certfile": secured.keys / "recurd.pem",
        "kafka.ssl_keyfile": secured.keys / "recurd.key",
        "kafka.create_topics": "false",
    }


def serves(secured: Secured, tmp_path: Path, way: dict[str, Any], first: int) -> str:
    """Run a daemon that forecasts five readings; its log."""
    topics, daemon = secured.topics, Daemon(secured.topics, tmp_path, "a", {**NETWORK, **way})
    with running(daemon):
        daemon.start()
        daemon.wait_ready()
        before = len(topics.read("forecasts"))
        times = [1_700_000_000_000 + (first + turn) * 60_000 for turn in range(5)]
        records = [(0, None, json.dumps({"stream": "s", "time": time_ms, "value": 1.5}).encode(), time_ms) for time_ms in times]
        topics.send([*records, (0, None, b"no reading", None)])
        wait_until(lambda: len(topics.read("forecasts")) == before + 5, "forecasts", every_s=0.5)
        assert daemon.stop() == 0
    return daemon.log.read_text()


def test_scram_over_tls(secured: Secured, tmp_path: Path) -> None:
    """The rights of acls.sh are enough; the password stands in no line of the log, at whatever level, nor in `config show`."""
    way = by_scram(secured)
    said = serves(secured, tmp_path, way, first=0)
    assert "committed" in said
    assert PASSWORD not in said
    shown = Command(way)("config", "show")
    assert PASSWORD not in shown
    assert "sasl_password is set and not shown" in shown


def test_client_certificate(secured: Secured, tmp_path: Path) -> None:
    """A certificate is a name, which has rights; the key stands in no line of the log."""
    said = serves(secured, tmp_path, by_certificate(secured), first=1000)
    key = (secured.keys / "recurd.key").read_text().splitlines()[1]
    assert key not in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kafka.sasl_username": "nobody"}, "authentication"),
        ({"kafka.ssl_cafile": None}, "certificate"),
    ],
)
def test_who_is_not_known_does_not_serve(secured: Secured, tmp_path: Path, change: dict[str, Any], told: str) -> None:
    """A wrong name, or a broker by an authority that is not ours: the log says which, and nothing is served."""
    way = {key: value for key, value in {**by_scram(secured), **change}.items() if value is not None}
    daemon = Daemon(secured.topics, tmp_path, "a", {**NETWORK, **way})
    with running(daemon):
        life = daemon.start()
        life.wait_for("http listening")
        wait_until(lambda: not life.running() or told in daemon.log.read_text().lower(), f"{told} in the log")
        if life.running():
            assert daemon.ready()[0] == 503
        else:
            assert life.end() == EXIT_NO_RESTART
    assert told in daemon.log.read_text().lower()
    assert PASSWORD not in daemon.log.read_text()


def test_the_daemon_may_not_write_weights(secured: Secured) -> None:
    """Topic `models` is the trust boundary: the daemon's own name cannot put a version in force, the worker's can."""
    promote = ("models", "promote", "naive")
    settings = {**secured.topics.settings, **NETWORK}
    daemon, worker = ({**settings, **by_scram(secured, user)} for user in ("recurd", "recurd-retrain"))
    secured.topics.send([(0, b"current", b"0123456789abcdef", None)], topic="models")
    refused = recurd(*promote, *(word for key, value in daemon.items() for word in ("--set", f"{key}={value}")))
    assert (refused.returncode, "AuthorizationFailed" in refused.stderr) == (1, True), refused.stderr
    assert "naive is in force" in Command(worker)(*promote)


def test_https_and_a_password(secured: Secured, tmp_path: Path) -> None:
    """The port speaks TLS and asks for a password, but not the probes; neither password nor header stands in the log."""
    web = {
        "http.tls_certfile": secured.keys / "broker.pem",
        "http.tls_keyfile": secured.keys / "broker.key",
        "http.username": "viewer",
        "http.password_file": secured.keys / "web-password",
    }
    daemon = Daemon(secured.topics, tmp_path, "a", {**NETWORK, **web})
    context = ssl.create_default_context(cafile=str(secured.keys / "ca.pem"))
    with running(daemon):
        port = daemon.start().wait_for("http listening").fields["port"]

        def ask(path: str, authorization: str | None = None) -> int:
            request = urllib.request.Request(f"https://127.0.0.1:{port}{path}")
            if authorization:
                request.add_header("Authorization", authorization)
            try:
                with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        assert ask("/livez") == 200
        assert [ask(path) for path in ("/", "/metrics", "/events", "/nothing")] == [401] * 4
        assert ask("/metrics", "Basic bm9ib2R5Om5vdGhpbmc=") == 401
        right = "Basic " + base64.b64encode(f"viewer:{WEB_PASSWORD}".encode()).decode()
        assert [ask(path, right) for path in ("/", "/metrics")] == [200, 200]
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=10)
        assert ask("/livez") == 200
    said = daemon.log.read_text()
    assert WEB_PASSWORD not in said
    assert right.split()[1] not in said
