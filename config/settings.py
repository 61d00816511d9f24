"""Settings of recurd: one frozen pydantic model a section, from a TOML file, `RECURD_SECTION__KEY` variables and `--set`.

`load` merges the three in rising order and turns every mistake into one sentence that names the key, the value and the
remedy. `EngineSettings` is the part that forecasts depend on: it is written into every epoch in full.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

ENV_PREFIX = "RECURD_"

#: A topic name, or nothing for the default one.
OPTIONAL_TOPIC = r"^[A-Za-z0-9._-]{0,249}$"


class SettingsError(Exception):
    """Wrong settings or usage: exit code 2. The message names the key, the value and the remedy."""


class Section(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KafkaSettings(Section):
    """How the daemon reaches Kafka and what it promises there."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="comma-separated host:port list")
    client: Literal["kafka-python"] = Field("kafka-python", description="the client library")
    group_id: str = Field("recurd", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="consumer group; prefix of our topics")
    instance_id: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,100}$", description="static membership: one name a process")
    delivery: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once", description="what a crash may repeat: nothing, or forecasts of one interval"
    )
    poll_interval_ms: int = Field(50, ge=0, le=5000, description="least time between two commits under low load, ms")
    max_poll_records: int = Field(10_000, ge=1, le=100_000, description="most records of one poll")
    session_timeout_ms: int = Field(45_000, ge=6000, le=1_800_000, description="a silent member is dropped after this, ms")
    transaction_timeout_ms: int = Field(
        10_000, ge=4000, le=900_000, description="a dead owner's transaction is aborted after, ms"
    )
    start: str = Field("earliest", description="first start: earliest | latest | an RFC 3339 time")
    on_gap: Literal["fail", "skip"] = Field("fail", description="records are gone that a restore needs: refuse, or go on without")
    create_topics: bool = Field(True, description="create missing topics")
    replication_factor: int = Field(-1, ge=-1, le=32767, description="replication of created topics; -1: as the broker is set")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="transport to the broker"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(None, description="SASL mechanism")
    sasl_username: str | None = Field(None, description="SASL user")
    sasl_password: SecretStr | None = Field(None, description="SASL password; better by variable or sasl_password_file")
    sasl_password_file: Path | None = Field(None, description="file with the SASL password; `load` puts it in sasl_password")
    ssl_cafile: Path | None = Field(None, description="CA certificates, PEM")
    ssl_certfile: Path | None = Field(None, description="client certificate, PEM")
    ssl_keyfile: Path | None = Field(None, description="client key, PEM")

    @field_validator("start")
    @classmethod
    def _start(cls, value: str) -> str:
        if value in ("earliest", "latest"):
            return value
        try:
            parse_time_ms(value)
        except ValueError:
            raise ValueError("must be earliest, latest or a time such as 2026-11-24T10:00:00Z") from None
        return value

    @field_validator("bootstrap_servers")
    @classmethod
    def _bootstrap_servers(cls, value: str) -> str:
        for server in value.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
                raise ValueError('must list host:port, such as "kafka-1:9092,kafka-2:9092"')
        return value

    @model_validator(mode="after")
    def _security_is_whole(self) -> KafkaSettings:
        if self.sasl_password and self.sasl_password_file:
            raise ValueError("kafka.sasl_password and kafka.sasl_password_file are both set: remove one of them")
        if self.security_protocol.startswith("SASL_"):
            for key in ("sasl_mechanism", "sasl_username"):
                if getattr(self, key) is None:
                    raise ValueError(f'kafka.security_protocol = "{self.security_protocol}" needs kafka.{key}: set it')
            if not (self.sasl_password or self.sasl_password_file):
                raise ValueError(
                    f'kafka.security_protocol = "{self.security_protocol}" needs a password: '
                    "set the variable RECURD_KAFKA__SASL_PASSWORD or kafka.sasl_password_file"
                )
        elif self.sasl_mechanism:
            raise ValueError(
                f'kafka.sasl_mechanism is set, but kafka.security_protocol = "{self.security_protocol}" uses no SASL: '
                'set it to "SASL_SSL", or remove the mechanism'
            )
        if bool(self.ssl_certfile) != bool(self.ssl_keyfile):
            raise ValueError("kafka.ssl_certfile and kafka.ssl_keyfile go together: set both or neither")
        return self


class TopicSettings(Section):
    """Topic names; all but the input default to `<group_id>.<name>`."""

    readings: str = Field("readings", pattern=r"^[A-Za-z0-9._-]{1,249}$", description="input topic")
    forecasts: str = Field("", pattern=OPTIONAL_TOPIC, description="output topic; default <group_id>.forecasts")
    state: str = Field("", pattern=OPTIONAL_TOPIC, description="changelog; default <group_id>.state")
    models: str = Field("", pattern=OPTIONAL_TOPIC, description="weights; default <group_id>.models")
    epochs: str = Field("", pattern=OPTIONAL_TOPIC, description="epoch log; default <group_id>.epochs")
    dead_letters: str = Field("", pattern=OPTIONAL_TOPIC, description="unusable records; default <group_id>.dead-letters")


class InputSettings(Section):
    """How a record becomes readings, and what is done with late and future ones. Part of every epoch."""

    format: Literal["json", "senml", "influx"] = Field("json", description="JSON, SenML packs or Influx line protocol")
    stream: str = Field("stream", min_length=1, description="dotted path of the stream id; absent: the record's key")
    time: str = Field("time", min_length=1, description="dotted path of the time; absent: the record's timestamp")
    value: str = Field("value", min_length=1, description="dotted path of the value, where a reading has one")
    values: dict[str, str] = Field(default_factory=dict, description="channel name -> dotted path, where a reading has several")
    max_bytes: int = Field(1_048_576, ge=64, description="larger record values are dead letters, bytes")
    max_elements: int = Field(1000, ge=1, le=100_000, description="most readings in one record")
    max_gap_s: float = Field(86_400.0 * 7, gt=0, le=4_000_000, description="a longer silence starts the stream afresh, s")
    max_ahead_s: float = Field(3600.0, gt=0, description="a reading further after its record's timestamp is a dead letter, s")
    on_late: Literal["drop", "dead-letter"] = Field("drop", description="late and duplicate readings")
    label: str = Field("", exclude=True, description="dotted path of what many_to_one is trained on: a number or a text; JSON")

    @field_validator("values")
    @classmethod
    def _values(cls, value: dict[str, str]) -> dict[str, str]:
        for channel, path in value.items():
            if not channel or not all(path.split(".")):
                raise ValueError(f'channel {channel!r} needs a name and a dotted path, such as temp = "values.temp"')
        return value

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in order; `("value",)` for single-valued readings."""
        return tuple(self.values) or ("value",)


#: The kinds that each setting of the network belongs to, where it does not belong to all.
KINDS_OF: dict[str, tuple[str, ...]] = {
    "cell": ("many_to_many", "encoder_decoder", "many_to_one", "one_to_many", "smoother"),
    "window_readings": ("many_to_one",),
    "session_gap_s": ("many_to_one",),
    "predicts": ("many_to_one",),
    "labels": ("many_to_one",),
    "scenarios": ("one_to_many",),
    "lag": ("smoother",),
}


#: Numbers that one_to_many may put out for one reading and target.
MOST_POINTS = 8192


class NetworkSettings(Section):
    """The network's shape. Part of every epoch."""

    kind: Literal["forecaster", "many_to_many", "encoder_decoder", "many_to_one", "one_to_many", "smoother", "chain"] = Field(
        "forecaster", description="arrangement of the network (docs/models.md); chain only hashes its input, for audits and tests"
    )
    cell: Literal["lstm", "gru", "elman"] = Field("lstm", description="recurrent cell; the forecaster's is an LSTM")
    hidden: int = Field(64, ge=8, le=1024, multiple_of=8, description="width of hidden and cell")
    layers: int = Field(1, ge=1, le=8, description="stacked layers")
    horizon: int = Field(24, ge=1, le=512, description="leads forecast, in sampling intervals")
    levels: tuple[float, ...] = Field((0.1, 0.5, 0.9), description="quantile levels, rising, with 0.5")
    context: int = Field(128, ge=16, le=4096, multiple_of=8, description="readings kept in the forecaster's row")
    targets: tuple[str, ...] = Field((), description="channels to forecast; empty: all")
    window_readings: int = Field(
        24, ge=2, le=100_000, description="many_to_one: readings of a window, where there are no sessions"
    )
    session_gap_s: float | None = Field(None, gt=0, description="many_to_one: a longer gap ends a session, s")
    predicts: Literal["next_mean", "label", "class"] = Field(
        "next_mean", description="many_to_one: the mean of the next window, the number at input.label, or one of model.labels"
    )
    labels: tuple[str, ...] = Field((), description="many_to_one: the classes, texts at input.label")
    scenarios: int = Field(16, ge=1, le=256, description="one_to_many: trajectories drawn for each reading")
    lag: int = Field(8, ge=1, le=512, description="smoother: readings after the one that its output is about")

    @field_validator("levels")
    @classmethod
    def _levels(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if 0.5 not in value or sorted(set(value)) != list(value) or not all(0 < q < 1 for q in value):
            raise ValueError("must rise, lie between 0 and 1, and contain 0.5, such as [0.1, 0.5, 0.9]")
        return value

    @field_validator("targets", "labels")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("must name each one once")
        return value

    @model_validator(mode="after")
    def _of_its_kind(self) -> NetworkSettings:
        """Refuse what another kind is set by, and a many_to_one that does not say what comes out."""
        for name, kinds in KINDS_OF.items():
            value = getattr(self, name)
            if self.kind not in kinds and value != type(self).model_fields[name].default:
                supported = "; the default forecaster supports cell lstm" if name == "cell" else ""
                raise ValueError(
                    f"model.{name} = {json.dumps(value)} is a setting of model.kind {' | '.join(kinds)}, not of "
                    f'"{self.kind}"{supported}: remove it, or set that kind'
                )
        if (self.predicts == "class") != bool(self.labels) or len(self.labels) == 1:
            raise ValueError(
                'model.predicts = "class" and model.labels go together: name two labels or more, such as ["idle", "busy"]'
            )
        if self.kind == "one_to_many" and self.scenarios * self.horizon > MOST_POINTS:
            raise ValueError(
                f"model.scenarios x model.horizon is {self.scenarios * self.horizon}, more than {MOST_POINTS} numbers a reading: "
                "lower one of them"
            )
        if self.session_gap_s is not None and self.window_readings != type(self).model_fields["window_readings"].default:
            raise ValueError("model.session_gap_s and model.window_readings are both set: remove one of them")
        return self

    @model_serializer(mode="wrap")
    def _without_others(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that belong to other kinds alone are not written: they say nothing of this network."""
        written: dict[str, Any] = handler(self)
        others = {name for name, kinds in KINDS_OF.items() if name != "cell" and self.kind not in kinds}
        return {name: value for name, value in written.items() if name not in others}


class ModelSettings(NetworkSettings):
    """The network's shape, and where first weights come from."""

    weights: Path | None = Field(None, description="published as the first model version when `models` is empty")

    def network(self) -> NetworkSettings:
        """The part that forecasts depend on: without the file the weights came from."""
        return NetworkSettings(**self.model_dump(exclude={"weights"}))


class StateSettings(Section):
    """Checkpoints and limits of the state."""

    checkpoint_interval_s: float = Field(10.0, ge=0.1, le=3600, description="longest time between a partition's checkpoints, s")
    checkpoint_readings: int = Field(200_000, ge=1, description="most readings of a partition between its checkpoints")
    max_streams_per_partition: int = Field(250_000, ge=1, le=50_000_000, description="beyond, the least recently seen is evicted")
    rebuild_share: float = Field(0.1, gt=0, le=1, description="share of the time that rebuilding rows for new weights may take")
    on_new_arithmetic: Literal["accept", "refuse"] = Field(
        "accept", description="another CPU or engine version: a new epoch, or exit 78"
    )


class OutputSettings(Section):
    """What is emitted. Part of every epoch."""

    emit_every: int = Field(1, ge=1, description="emit every n-th forecast of a stream")


class HttpSettings(Section):
    """The HTTP port: the live page, /metrics, /livez, /readyz."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(9464, ge=0, le=65535, description="port; 0: any free one")
    tls_certfile: Path | None = Field(None, description="certificate chain, PEM: HTTPS instead of HTTP")
    tls_keyfile: Path | None = Field(None, description="its key, PEM")
    username: str | None = Field(None, description="basic authentication, of all but the probes")
    password: SecretStr | None = Field(None, description="its password; better by variable or password_file")
    password_file: Path | None = Field(None, description="file with the password; `load` puts it in password")

    @model_validator(mode="after")
    def _access_is_whole(self) -> HttpSettings:
        if bool(self.tls_certfile) != bool(self.tls_keyfile):
            raise ValueError("http.tls_certfile and http.tls_keyfile go together: set both or neither")
        if self.password and self.password_file:
            raise ValueError("http.password and http.password_file are both set: remove one of them")
        if bool(self.username) != bool(self.password or self.password_file):
            raise ValueError("http.username and a password (http.password_file) go together: set both or neither")
        return self


class LogSettings(Section):
    """Log lines."""

    format: Literal["text", "json"] = Field("text", description="text or one JSON object a line")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level logged")


class WatchdogSettings(Section):
    """The watchdog ends a hung process."""

    timeout_s: float = Field(30.0, ge=1, le=3600, description="no progress of the loop for this long: stacks, exit 75, s")


class RetrainSettings(Section):
    """The worker `recurd retrain`: what it reads, when it trains, and when a candidate is better."""

    supervised: bool = Field(False, description="serve runs the worker beside the daemon that owns partition 0")
    every_s: float = Field(86_400.0, ge=1, le=31_536_000, description="between two cycles, s")
    window_s: float = Field(
        86_400.0 * 60, ge=60, le=315_360_000, description="readings this old are used, by record timestamp, s"
    )
    max_readings: int = Field(1_000_000, ge=1000, description="about the most readings used: beyond, a sample of the streams")
    held_out: float = Field(0.2, gt=0, lt=0.9, description="share of the readings, the newest, that judge and are not trained on")
    min_gain: float = Field(0.02, ge=0, lt=1, description="share by which a candidate's error must be smaller")
    shadow_readings: int = Field(0, ge=0, description="live readings that a candidate runs beside the version in force; 0: none")
    probation_readings: int = Field(500, ge=0, description="live readings after which a new version is kept for good; 0: at once")
    live_streams: int = Field(500, ge=1, description="most streams followed live, for the two above and for drift")
    drift_share: float = Field(
        0.1, ge=0, le=1, description="share of a partition's streams whose error rose that begins a cycle; 0: none"
    )
    drift_pause_s: float = Field(3600.0, ge=1, le=31_536_000, description="drift begins no cycle so soon after another one, s")
    steps: int = Field(720, ge=1, description="optimizer steps at most")
    seed: int = Field(0, ge=0, description="of sampling and dropout")
    nice: int = Field(19, ge=0, le=19, description="niceness of the worker")
    port: int = Field(9465, ge=0, le=65535, description="/metrics of a worker that runs alone, on http.host; 0: any free one")


class EngineSettings(Section):
    """All that a forecast depends on besides the log and the weights: written into every epoch in full."""

    input: InputSettings = InputSettings()
    model: NetworkSettings = NetworkSettings()
    max_streams_per_partition: int = 250_000
    emit_every: int = 1

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in order."""
        return self.input.channels

    @property
    def targets(self) -> tuple[str, ...]:
        """Channels that are forecast, in order."""
        return self.model.targets or self.channels


class Settings(Section):
    """Everything."""

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    input: InputSettings = InputSettings()
    model: ModelSettings = ModelSettings()
    state: StateSettings = StateSettings()
    output: OutputSettings = OutputSettings()
    retrain: RetrainSettings = RetrainSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    watchdog: WatchdogSettings = WatchdogSettings()

    @model_validator(mode="after")
    def _targets_are_channels(self) -> Settings:
        unknown = [name for name in self.model.targets if name not in self.input.channels]
        if unknown:
            channels = ", ".join(self.input.channels)
            raise ValueError(f"model.targets names {unknown[0]!r}, which is no channel of input.values: use {channels}")
        return self

    @model_validator(mode="after")
    def _kind_is_served(self) -> Settings:
        kind, gap_s = self.model.kind, self.model.session_gap_s
        if self.retrain.supervised and kind in KINDS_OF["cell"]:
            raise ValueError(f'model.kind = "{kind}" is not retrained: set retrain.supervised = false')
        if gap_s is not None and gap_s >= self.input.max_gap_s:
            raise ValueError("model.session_gap_s must be less than input.max_gap_s, after which a stream starts afresh")
        if kind == "many_to_one" and self.output.emit_every > 1:
            raise ValueError("output.emit_every is not for many_to_one, which emits one output a window: remove it")
        if self.input.label and self.input.format != "json":
            raise ValueError(f'input.label is read from JSON, and input.format = "{self.input.format}": remove one of them')
        return self

    @model_validator(mode="after")
    def _topics_differ(self) -> Settings:
        taken: dict[str, str] = {}
        for key in TopicSettings.model_fields:
            name = self.topic(key)
            if name in taken:
                raise ValueError(f"topics.{taken[name]} and topics.{key} are both {name!r}: name another topic in one of them")
            taken[name] = key
        return self

    def topic(self, name: str) -> str:
        """The name of topic `readings`, `forecasts`, `state`, `models`, `epochs` or `dead_letters`."""
        return getattr(self.topics, name) or f"{self.kafka.group_id}.{name.replace('_', '-')}"

    def engine(self) -> EngineSettings:
        """The part that forecasts depend on."""
        return EngineSettings(
            input=self.input,
            model=self.model.network(),
            max_streams_per_partition=self.state.max_streams_per_partition,
            emit_every=self.output.emit_every,
        )


def parse_time_ms(text: str) -> int:
    """Epoch milliseconds of an RFC 3339 time; a time without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def load(path: Path | None, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Settings:
    """Settings from a file, then `RECURD_SECTION__KEY` variables, then `section.key=value` overrides.

    A password file is read here, so that `kafka.sasl_password` is all the rest needs to know.

    Raises:
        SettingsError: With one sentence for the first mistake.
    """
    merged = _read_file(path) if path else {}
    for key, text in _from_environ(environ):
        _put(merged, key, text, f"The variable {ENV_PREFIX}{key.upper().replace('.', '__')}")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise SettingsError(f"--set {override!r} has no value: write section.key=value, such as kafka.group_id=plant-7.")
        _put(merged, key.strip(), text.strip(), f"--set {key.strip()}")
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None
    return _with_passwords(settings)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {str(path)!r} cannot be read ({error.strerror}): check --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {str(path)!r} is not TOML ({error}): mend that line.") from None


def _with_passwords(settings: Settings) -> Settings:
    """The settings with passwords read from their files, where one is named."""
    changed: dict[str, Section] = {}
    if settings.kafka.sasl_password_file:
        password = _password("kafka.sasl_password_file", settings.kafka.sasl_password_file)
        changed["kafka"] = settings.kafka.model_copy(update={"sasl_password": password})
    if settings.http.password_file:
        password = _password("http.password_file", settings.http.password_file)
        changed["http"] = settings.http.model_copy(update={"password": password})
    return settings.model_copy(update=changed)


def _password(key: str, file: Path) -> SecretStr:
    """What a file holds; a final newline is not part of it."""
    try:
        password = file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise SettingsError(f"{key} = {str(file)!r} cannot be read ({error.strerror}): check it.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{key} = {str(file)!r} is not UTF-8: write the password as UTF-8 text.") from None
    if not password:
        raise SettingsError(f"{key} = {str(file)!r} is empty: write the password into it.")
    return SecretStr(password)


def _from_environ(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """`RECURD_KAFKA__GROUP_ID=x` as `("kafka.group_id", "x")`; other variables are not ours."""
    found = []
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and "__" in name:
            found.append((name.removeprefix(ENV_PREFIX).lower().replace("__", "."), environ[name]))
    return found


def _put(merged: dict[str, Any], key: str, text: str, origin: str) -> None:
    """Set `section.key` (or `section.key.name` for a table) to what the text says for that key."""
    *parents, leaf = key.split(".")
    if not parents or not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in (*parents, leaf)):
        raise SettingsError(f"{origin} names no section and key: write section.key, such as kafka.group_id.")
    table = merged
    for part in parents:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{origin} looks inside {part!r}, which is a single value: name the key itself.")
    table[leaf] = _value(text, _field_type(key))


def _field_type(key: str) -> Any:
    """The annotation of `section.key` or of an entry of a table; None for a key that is none."""
    section, name = key.split(".")[:2]
    known = Settings.model_fields.get(section)
    field = type(known.default).model_fields.get(name) if known else None
    if field is None:
        return None
    return str if get_origin(field.annotation) is dict and key.count(".") == 2 else field.annotation


def _value(text: str, wanted: Any) -> Any:
    """Text of a variable or override as a value: as TOML where it is, and where no text is wanted; else as it stands.

    `kafka.group_id=7` and a password of digits stay text; a password is never unquoted.
    """
    kinds = alternatives(wanted)
    if SecretStr in kinds:
        return text
    try:
        parsed = tomllib.loads(f"x = {text}")
    except tomllib.TOMLDecodeError:
        return text
    if set(parsed) != {"x"} or ((str in kinds or Path in kinds) and not isinstance(parsed["x"], str)):
        return text
    return parsed["x"]


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union; of anything else the annotation itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _sentence(error: ValidationError) -> str:
    """The first mistake as one sentence: key, value, what is wrong, remedy."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"Unknown setting {key}: {_nearest(key)}"
    if first["type"] == "value_error" and len(first["loc"]) < 2:  # keys that contradict each other; the message names them
        return f"{first['ctx']['error']}."
    shown = "(hidden)" if "password" in key else _shown(first["input"])
    if len(first["loc"]) == 1:
        return f"Setting {key} = {shown} is not valid: {key} is a section; write [{key}] and its keys below."
    wrong = first["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    return f"Setting {key} = {shown} is not valid: {wrong[:1].lower()}{wrong[1:]}{_help(key)}."


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def known_keys() -> dict[str, str]:
    """`section.key` -> description, of every setting, in the order of the models."""
    keys = {}
    for name, section in Settings.model_fields.items():
        for key, value in type(section.default).model_fields.items():
            keys[f"{name}.{key}"] = value.description or ""
    return keys


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else "remove it, or see `recurd config show --defaults` for all keys."


def _help(key: str) -> str:
    description = known_keys().get(".".join(key.split(".")[:2]))
    return f" ({description})" if description else ""
