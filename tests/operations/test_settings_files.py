"""Settings: which wins, what is refused and how, and the example that we ship."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dadafs import settings
from dadafs.cli import main
from dadafs.errors import UsageError
from dadafs.settings import SECTIONS, effective, shown, size

EXAMPLE = Path(__file__).resolve().parents[2] / "systemd" / "dadafs.toml.example"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes system and user files of this test's own; the environment that names them."""
    monkeypatch.setattr(settings, "SYSTEM_FILE", tmp_path / "etc.toml")
    (tmp_path / "dadafs").mkdir()

    def write(system: str = "", user: str = "") -> dict[str, str]:
        (tmp_path / "etc.toml").write_text(system)
        (tmp_path / "dadafs" / "dadafs.toml").write_text(user)
        return {"XDG_CONFIG_HOME": str(tmp_path)}

    return write


def test_the_later_wins(written: Any, tmp_path: Path) -> None:
    environ = written('[mount]\nthreads=1\nmemory="1MiB"\n', "[mount]\nthreads=2\n")
    found = effective("mount", {}, environ)
    assert (found["threads"].value, found["memory"].value) == (2, 1 << 20)
    assert found["threads"].source == str(tmp_path / "dadafs" / "dadafs.toml")
    assert found["memory"].source == str(tmp_path / "etc.toml")
    assert found["results_size"].source == "default"
    environ["DADAFS_MOUNT_THREADS"] = "3"
    found = effective("mount", {"threads": None}, environ)
    assert (found["threads"].value, found["threads"].source) == (3, "DADAFS_MOUNT_THREADS")
    found = effective("mount", {"threads": 4, "raw": "not a setting"}, environ)
    assert (found["threads"].value, found["threads"].source) == (4, "command line")


def test_no_file_is_fine_but_one_that_is_named_must_be_there(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    assert effective("peer", {}, environ)["memory"].value == 128 << 20
    with pytest.raises(UsageError, match="no such configuration file"):
        effective("peer", {}, environ, tmp_path / "none.toml")
    with pytest.raises(UsageError, match="no such configuration file"):
        effective("peer", {}, environ | {"DADAFS_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[mount]\nthread = 2\n", "[mount] has no 'thread'; did you mean 'threads'?"),
        ("[sever]\n", "no section [sever]; did you mean 'server'?"),
        ("threads = 2\n", "no key 'threads' here"),
        ("mount = 2\n", "write [mount]"),
        ("[mount]\nthreads = 0\n", "threads: 0 is no number from 1 to 1024"),
        ("[mount]\nthreads = true\n", "no number from"),
        ('[mount]\nmemory = "much"\n', "no size; say for instance 128MiB"),
        ("[mount]\nmemory = 12\n", "at least 1MiB"),
        ("[mount]\nmemory = 1.5\n", "no size"),
        ('[mount]\ncache = "here"\n', "not an absolute path"),
        ('[mount]\nallow_other = "perhaps"\n', "neither true nor false"),
        ('[server]\nlisten = "host:port"\n', "no address"),
        ("[peer]\nzzz = 1\n", "has no 'zzz'; known are server"),
        ("[mount\n", "Expected"),
        ("[peer]\nname = ''\n", "is no name"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line_that_names_the_file(
    written: Any, tmp_path: Path, content: str, said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        effective("mount", {}, written(content))
    line = str(refused.value)
    assert said in line
    assert line.startswith(str(tmp_path / "etc.toml"))
    assert "\n" not in line


def test_variables_are_checked_and_others_left_alone() -> None:
    with pytest.raises(UsageError, match="did you mean 'DADAFS_MOUNT_THREADS'"):
        effective("mount", {}, {"DADAFS_MOUNT_THREAD": "2", "HOME": "/nowhere"})
    with pytest.raises(UsageError, match="DADAFS_PEER_MEMORY: 'x' is no size"):
        effective("mount", {}, {"DADAFS_PEER_MEMORY": "x", "HOME": "/nowhere"})
    environ = {"DADAFS_TEST_DAMAGED": "1", "DADAFS_MOUNT_THREADS": "", "HOME": "/nowhere"}
    assert effective("mount", {}, environ)["threads"].source == "default"


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    with suppress(UsageError):
        effective("mount", {}, {}, file)


@given(st.integers(1 << 20, 1 << 45))
def test_sizes_are_read_as_they_are_shown(count: int) -> None:
    setting = SECTIONS["mount"]["memory"]
    assert size(shown(count, setting).strip('"')) == count


def test_sizes() -> None:
    assert size("128MiB") == size("128M") == size("128mb") == size(128 << 20) == 128 << 20
    assert size("1.5GiB") == 3 << 29


def test_the_example_is_the_defaults_and_tells_every_setting() -> None:
    text = EXAMPLE.read_text()
    tomllib.loads(text)
    uncommented = "\n".join(
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in text.splitlines()
    )
    told = tomllib.loads(uncommented)
    assert {name: set(table) for name, table in told.items()} == {
        name: set(table) for name, table in SECTIONS.items()
    }
    for section in SECTIONS:
        effective(section, {}, {}, EXAMPLE)
        for key, raw in told[section].items():
            setting = SECTIONS[section][key]
            value = setting.read(raw)
            if setting.default is not None and key != "listen":
                assert value == setting.default, key


def test_config_show_is_a_file_again(
    written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name, value in written('[peer]\nname = "a \\"b"\ninsecure_network = true\n').items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DADAFS_PEER_THREADS", "7")
    assert main(["config", "show", "peer"]) == 0
    printed = capsys.readouterr().out
    assert "DADAFS_PEER_THREADS" in printed
    assert str(tmp_path / "etc.toml") in printed
    again = tmp_path / "again.toml"
    again.write_text(printed)
    assert tomllib.loads(printed)["peer"]["threads"] == 7
    found = effective("peer", {}, {}, again)
    assert (found["name"].value, found["insecure_network"].value) == ('a "b', True)
    assert main(["config", "show"]) == 0


def test_commands_take_settings_from_files(written: Any, monkeypatch: Any, capsys: Any) -> None:
    for name, value in written('[server]\nroot = "/no/such/tree"\n[peer]\nx = 1').items():
        monkeypatch.setenv(name, value)
    assert main(["server"]) == 2
    assert "[peer] has no 'x'" in capsys.readouterr().err
    written('[server]\nroot = "/no/such/tree"\n')
    assert main(["server"]) == 2
    assert "/no/such/tree is not a directory" in capsys.readouterr().err
    assert main(["peer"]) == 2
    assert "say --server HOST:PORT" in capsys.readouterr().err
