"""Settings: three sources in rising order, one sentence a mistake, nothing secret in print."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import reference, toml
from config.settings import Settings, SettingsError, known_keys, load

ROOT = Path(__file__).parents[2]
DEFAULT_TOML = Path(toml.__file__).with_name("default.toml")
SASL = ["kafka.security_protocol=SASL_SSL", "kafka.sasl_mechanism=PLAIN", "kafka.sasl_username=ann"]


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def sentence(*overrides: str, environ: dict[str, str] | None = None, path: Path | None = None) -> str:
    with pytest.raises(SettingsError) as raised:
        load(path, environ or {}, overrides)
    return str(raised.value)


def test_sources_rise(tmp_path: Path) -> None:
    """A variable beats the file, an override beats both, and what none names keeps its default."""
    file = written(tmp_path / "recurd.toml", "[kafka]\ngroup_id = 'a'\npoll_interval_ms = 1\n[http]\nport = 1\n")
    settings = load(file, {"RECURD_KAFKA__GROUP_ID": "b", "RECURD_HTTP__PORT": "2", "HOME": "/"}, ["http.port=3"])
    assert (settings.kafka.group_id, settings.kafka.poll_interval_ms, settings.http.port) == ("b", 1, 3)
    assert settings.kafka.session_timeout_ms == Settings().kafka.session_timeout_ms


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("kafka.group_id=7", "7"),
        ("kafka.group_id=plant", "plant"),
        ('kafka.group_id="plant"', "plant"),
        ("topics.readings=2026-11-24", "2026-11-24"),
        ("kafka.create_topics=false", False),
        ("model.levels=[0.05, 0.5]", (0.05, 0.5)),
        ('model.targets=["value"]', ("value",)),
        ("input.values={ value = 'a.b' }", {"value": "a.b"}),
        ("input.values.rh=1", {"rh": "1"}),
        ("kafka.ssl_cafile=/etc/ca.pem", Path("/etc/ca.pem")),
        ("kafka.on_gap=skip", "skip"),
    ],
)
def test_override_text_becomes_the_type_of_its_key(override: str, value: object) -> None:
    """Text stays text where text is wanted, and is TOML elsewhere."""
    section, key = override.partition("=")[0].split(".")[:2]
    assert getattr(getattr(load(None, {}, [override]), section), key) == value


def test_a_variable_with_a_newline_sets_one_key() -> None:
    """A value cannot smuggle in another key."""
    message = sentence(environ={"RECURD_HTTP__PORT": "1\nhost = '0.0.0.0'"})
    assert "http.port" in message


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("kafka.gruop_id=x", ["kafka.gruop_id", "did you mean kafka.group_id?"]),
        ("zzz.qqqqqq=1", ["zzz", "config show --defaults"]),
        ("kafka.poll_interval_ms=-1", ["kafka.poll_interval_ms", "-1", "greater than or equal to 0", "ms"]),
        ("kafka.poll_interval_ms=fast", ["kafka.poll_interval_ms", '"fast"', "integer"]),
        ("kafka.delivery=twice", ["kafka.delivery", '"twice"', "exactly_once"]),
        ("kafka.start=soon", ["kafka.start", '"soon"', "earliest"]),
        ("kafka.bootstrap_servers=broker", ["kafka.bootstrap_servers", "host:port"]),
        ("kafka.bootstrap_servers=a:1,b:99999", ["kafka.bootstrap_servers", "host:port"]),
        ("model.hidden=60", ["model.hidden", "60", "multiple of 8"]),
        ("model.levels=[0.9, 0.5]", ["model.levels", "[0.9, 0.5]", "rise"]),
        ("model.levels=[0.1, 0.9]", ["model.levels", "contain 0.5"]),
        ('model.targets=["a"]', ["model.targets", "'a'", "use value"]),
        ('model.targets=["value", "value"]', ["model.targets", "once"]),
        ("model.cell=gru", ["model.cell", '"gru"', '"forecaster"', "supports cell lstm"]),
        ("model.lag=4", ["model.lag", "smoother", '"forecaster"']),
        ("model.scenarios=4", ["model.scenarios", "one_to_many"]),
        ('model.labels=["a", "b"]', ["model.labels", "many_to_one"]),
        ("input.values={ rh = '' }", ["input.values", "'rh'", "dotted path"]),
        ("input.max_gap_s=nan", ["input.max_gap_s", "finite"]),
        ("topics.forecasts=readings", ["topics.readings", "topics.forecasts", "another topic"]),
        ("topics.state=a/b", ["topics.state", '"a/b"']),
        ("kafka.sasl_mechanism=PLAIN", ["kafka.sasl_mechanism", "SASL_SSL"]),
        ("kafka.security_protocol=SASL_SSL", ["kafka.security_protocol", "kafka.sasl_mechanism"]),
        ("kafka.ssl_keyfile=/k", ["kafka.ssl_certfile", "kafka.ssl_keyfile"]),
        ("kafka=3", ["--set kafka", "section.key"]),
        ("kafka.group_id", ["kafka.group_id", "no value"]),
        ("kafka.group_id.x=1", ["kafka.group_id"]),
    ],
)
def test_mistake_is_one_sentence_with_key_value_and_remedy(override: str, names: list[str]) -> None:
    """A mistake names its key, what stands there and what would be right, on one line without pydantic's own words."""
    message = sentence(override)
    for name in names:
        assert name in message
    assert "\n" not in message
    assert "pydantic" not in message
    assert message.endswith((".", "?"))


def test_section_given_as_a_value(tmp_path: Path) -> None:
    """A section that is a single value is called a section."""
    message = sentence(path=written(tmp_path / "recurd.toml", "kafka = 3"))
    assert message == "Setting kafka = 3 is not valid: kafka is a section; write [kafka] and its keys below."


def test_broken_file(tmp_path: Path) -> None:
    """A file that is not TOML is named with the line."""
    file = written(tmp_path / "recurd.toml", "[kafka\n")
    assert str(file) in (message := sentence(path=file))
    assert "line 1" in message


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named with the option."""
    message = sentence(path=tmp_path / "none.toml")
    assert "none.toml" in message
    assert "--config" in message


def test_password_from_a_file(tmp_path: Path) -> None:
    """A password file is read once, without its final newline."""
    file = written(tmp_path / "password", " pass word \n")
    settings = load(None, {}, [*SASL, f"kafka.sasl_password_file={file}"])
    assert settings.kafka.sasl_password is not None
    assert settings.kafka.sasl_password.get_secret_value() == " pass word "


@pytest.mark.parametrize(("content", "names"), [(None, "cannot be read"), (b"\n", "empty"), (b"\xff", "UTF-8")])
def test_bad_password_file(tmp_path: Path, content: bytes | None, names: str) -> None:
    """A password file that gives no password is a mistake in the settings."""
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    message = sentence(*SASL, f"kafka.sasl_password_file={file}")
    assert "kafka.sasl_password_file" in message
    assert names in message


def test_password_and_password_file() -> None:
    """Two sources of one password are refused."""
    message = sentence(*SASL, "kafka.sasl_password=x", "kafka.sasl_password_file=/x")
    assert "kafka.sasl_password_file are both set" in message


@pytest.mark.parametrize("text", ["12345", "true", '"quoted"', "[1]"])
def test_password_is_taken_as_it_stands(text: str) -> None:
    """A password is never read as TOML."""
    password = load(None, {"RECURD_KAFKA__SASL_PASSWORD": text}, SASL).kafka.sasl_password
    assert password is not None
    assert password.get_secret_value() == text


def test_password_never_shows(tmp_path: Path) -> None:
    """Neither print, nor TOML, nor a mistake beside it shows a password."""
    environ = {"RECURD_KAFKA__SASL_PASSWORD": "s3cret"}
    settings = load(None, environ, SASL)
    shown = [repr(settings), toml.effective(settings), settings.model_dump_json()]
    shown.append(sentence("kafka.sasl_mechanism=PLAIN", environ=environ))
    shown.append(sentence(path=written(tmp_path / "a.toml", "[kafka]\nsasl_password = [1, 's3cret']\n")))
    assert not [text for text in shown if "s3cret" in text]


def test_every_key_has_a_meaning() -> None:
    """No key goes without a description, and one with a bare number of time or size names its unit."""
    assert not [key for key, meaning in known_keys().items() if not meaning]
    for key, meaning in known_keys().items():
        for suffix, unit in (("_ms", "ms"), ("_s", "s"), ("_bytes", "bytes")):
            if key.endswith(suffix):
                assert meaning.endswith(f", {unit}"), key


def test_default_toml_is_up_to_date() -> None:
    """`default.toml` is what the models generate; mend it with `python -m config.toml > config/default.toml`."""
    assert DEFAULT_TOML.read_text("utf-8") == toml.defaults()


def test_the_configuration_page_is_up_to_date() -> None:
    """The page is what the models generate; mend it with `python -m config.reference > docs/configuration.md`."""
    assert (ROOT / "docs" / "configuration.md").read_text("utf-8") == reference.page()


def test_default_toml_is_the_defaults() -> None:
    """Loading `default.toml` changes nothing, and every key stands in it."""
    assert load(DEFAULT_TOML, {}) == Settings()
    text = DEFAULT_TOML.read_text("utf-8")
    keys = {line.removeprefix("# ").partition(" =")[0] for line in text.splitlines() if " =" in line}
    assert {key.partition(".")[2] for key in known_keys()} <= keys


def test_effective_settings_load_again(tmp_path: Path) -> None:
    """What `config show` prints is a settings file with the same meaning."""
    settings = load(
        None, {}, ["input.values={ 'a\"b' = 'x.ü' }", "kafka.ssl_cafile=/a b", "kafka.instance_id=i", "model.levels=[0.5]"]
    )
    assert load(written(tmp_path / "shown.toml", toml.effective(settings)), {}) == settings


def test_topic_names() -> None:
    """All topics but the input take the group's name in front, unless named."""
    settings = load(None, {}, ["kafka.group_id=plant", "topics.state=rows"])
    names = [settings.topic(name) for name in ("readings", "forecasts", "state", "dead_letters")]
    assert names == ["readings", "plant.forecasts", "rows", "plant.dead-letters"]


def test_engine_settings_leave_out_what_bytes_do_not_depend_on() -> None:
    """The engine's part changes with the network and the input, not with Kafka, limits of time or the file of the weights."""
    plain = Settings().engine()
    same = ["model.weights=/w", "kafka.group_id=x", "state.checkpoint_interval_s=1", "log.level=debug"]
    assert load(None, {}, same).engine() == plain
    for changed in ("model.hidden=32", "input.max_gap_s=1", "output.emit_every=2", "state.max_streams_per_partition=5"):
        assert load(None, {}, [changed]).engine() != plain


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["http.tls_certfile=/c.pem"], "http.tls_certfile and http.tls_keyfile go together"),
        (["http.username=viewer"], "http.username and a password (http.password_file) go together"),
        (["http.password=x", "http.password_file=/p", "http.username=v"], "http.password and http.password_file are both set"),
    ],
)
def test_access_to_the_port_is_whole(given: list[str], told: str) -> None:
    """Half a certificate or half a login is a mistake, not an open port."""
    assert told in sentence(*given)


def test_both_passwords_come_from_files(tmp_path: Path) -> None:
    """The port's password is read as Kafka's is, and neither is shown."""
    (tmp_path / "web").write_text("secret\n")
    settings = load(None, {}, ["http.username=viewer", f"http.password_file={tmp_path}/web"])
    assert settings.http.password is not None
    assert settings.http.password.get_secret_value() == "secret"
    assert "secret" not in repr(settings)


def test_scenarios_have_a_bound() -> None:
    """What one reading gives must fit into memory, a thousand times, and into a record."""
    assert "is 16384, more than 8192" in sentence("model.kind=one_to_many", "model.horizon=256", "model.scenarios=64")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["model.predicts=class"], "model.labels go together"),
        (['model.labels=["a", "b"]'], "model.labels go together"),
        (["model.predicts=class", 'model.labels=["a"]'], "two labels or more"),
        (["model.session_gap_s=60", "model.window_readings=5"], "both set"),
        (["model.session_gap_s=60", "input.max_gap_s=60"], "less than input.max_gap_s"),
        (["output.emit_every=2"], "output.emit_every is not for many_to_one"),
        (["input.label=x", "input.format=senml"], 'input.format = "senml"'),
    ],
)
def test_what_many_to_one_cannot_be(given: list[str], told: str) -> None:
    """Settings that contradict each other, in one sentence."""
    assert told in sentence("model.kind=many_to_one", *given)
