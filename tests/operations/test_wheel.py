"""What is installed from a wheel has all that it takes, and says what the machine lacks."""

from __future__ import annotations

import os
import subprocess
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

from dadafs.cli import main
from dadafs.commands.installing import PROGRAM, SETTINGS, contents
from tools.wheels import ROOT, dependencies, install_wheel, make_wheel

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess[str]]
HIDDEN = """
    set -e
    mount -t tmpfs tmpfs "$1"
    for name in null zero random urandom; do
        : > "$1/$name"
        mount --bind "/dev/$name" "$1/$name"
    done
    mount --rbind "$1" /dev
    shift
    exec "$@"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheel")


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    return make_wheel(place)


@pytest.fixture(scope="module")
def program(wheel: Path, place: Path) -> Path:
    return install_wheel(wheel, place / "venv")


@pytest.fixture(scope="module")
def run(program: Path, place: Path) -> Run:
    """Run a command, away from the sources, as somebody who has only the wheel."""
    env = os.environ | {
        "PYTHONPATH": str(dependencies(place / "dependencies")),
        "XDG_CACHE_HOME": str(place / "cache"),
        "XDG_RUNTIME_DIR": str(place),
    }

    def finish(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, words)),
            env=env | more,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
        )

    return finish


def test_wheel_says_what_it_needs_and_brings_one_command(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as archive:
        (about,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        (points,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        facts = Parser().parsestr(archive.read(about).decode())
        assert archive.read(points).decode().split() == [
            "[console_scripts]", "dadafs", "=", "dadafs.cli:main"
        ]  # fmt: skip
        packages = {name.partition("/")[0] for name in archive.namelist()}
    needed = [line for line in facts.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(needed) == sorted(project["dependencies"])
    assert {name for name in packages if not name.endswith(".dist-info")} == {"analysis", "dadafs"}


def test_every_module_and_file_is_in_the_wheel(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "analysis", "dadafs"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("no checkout by git")
    with zipfile.ZipFile(wheel) as archive:
        there = set(archive.namelist())
    assert set(listed.stdout.split()) - there == set()


def test_a_wheel_installs_units_manual_and_completion(
    run: Run, program: Path, tmp_path: Path
) -> None:
    done = run(program, "install", "--root", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for target, text in contents().items():
        assert (tmp_path / target.relative_to("/")).read_text() == text
        assert f"{tmp_path}{target}\n" in done.stdout
    link = tmp_path / PROGRAM.relative_to("/")
    assert link.readlink() == program
    # once more, after an upgrade: settings are the administrator's
    (tmp_path / SETTINGS.relative_to("/")).write_text("[mount]\nthreads = 1\n")
    (tmp_path / "etc/systemd/system/dadafs-server.service").write_text("old")
    link.unlink()
    link.symlink_to("/no/such/program")
    done = run(program, "install", "--root", tmp_path)
    assert f"{tmp_path}{SETTINGS} is kept\n" in done.stdout
    assert (tmp_path / SETTINGS.relative_to("/")).read_text() == "[mount]\nthreads = 1\n"
    assert "old" not in (tmp_path / "etc/systemd/system/dadafs-server.service").read_text()
    assert link.readlink() == program


def test_install_refuses_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / PROGRAM.relative_to("/")
    link.parent.mkdir(parents=True)
    link.write_text("somebody's own")
    assert main(["install", "--root", str(tmp_path)]) == 2
    assert f"dadafs: {link} is there and no link" in capsys.readouterr().err
    assert link.read_text() == "somebody's own"

    def denied(path: Path, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_text", denied)  # this test may run as root
    assert main(["install", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.endswith(" cannot be written: be root, or say --root DIR\n")
    assert len(said.splitlines()) == 1


def test_certificates_are_made(run: Run, program: Path, tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    done = run(program, "certs", ca, "server:heinzelfrau", "peer:h001")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"server heinzelfrau: {ca}/heinzelfrau\npeer h001: {ca}/h001\n"
    again = run(program, "certs", ca, "client:lab1")  # by the same authority
    assert again.returncode == 0
    for name, role in (("heinzelfrau", "server"), ("h001", "peer"), ("lab1", "client")):
        pem = ca / name / "node.pem"
        done = run("openssl", "verify", "-CAfile", ca / name / "ca.pem", pem)
        assert done.returncode == 0, done.stderr
        assert f"OU = {role}" in run("openssl", "x509", "-noout", "-subject", "-in", pem).stdout
        assert (ca / name / "node.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("words", "path", "said"),
    [
        (("h001",), None, "'h001' is no node; say for instance peer:h001"),
        (("boss:h001",), None, "'boss:h001' is no node"),
        (("peer:..",), None, "'peer:..' is no node"),
        (("peer:h001",), "/nowhere", "openssl is missing: install the package openssl"),
    ],
)
def test_certs_refuses_in_a_line(
    words: tuple[str, ...],
    path: str | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if path is not None:
        monkeypatch.setenv("PATH", path)
    assert main(["certs", str(tmp_path / "ca"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dadafs: {said}")


@pytest.fixture
def without_device(tmp_path: Path) -> list[str]:
    """What runs a command where there is no /dev/fuse."""
    (tmp_path / "dev").mkdir()
    command = ["unshare", "-m", "sh", "-c", HIDDEN, "sh", str(tmp_path / "dev")]
    if os.geteuid() != 0 or subprocess.run([*command, "true"]).returncode:
        pytest.skip("a mount namespace needs root")
    return command


@pytest.mark.mount
def test_without_the_device(
    run: Run, program: Path, without_device: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mnt").mkdir()
    done = run(*without_device, program, "mount", ROOT, tmp_path / "mnt")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "dadafs: /dev/fuse is missing: `modprobe fuse`; in a container, pass it in\n"
    )
    done = run(*without_device, program, "doctor", "--quick")
    assert done.returncode == 1
    assert "WRONG  /dev/fuse        is missing: `modprobe fuse`" in done.stdout


@pytest.mark.mount
def test_without_the_program(run: Run, program: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "bin").mkdir()
    path = str(tmp_path / "bin")
    done = run(program, "mount", ROOT, tmp_path / "mnt", PATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dadafs: fusermount3 is missing: `apt install fuse3`\n"
    done = run(program, "doctor", "--quick", PATH=path)
    assert done.returncode == 1
    assert "WRONG  fusermount3      is missing: `apt install fuse3`\n" in done.stdout
