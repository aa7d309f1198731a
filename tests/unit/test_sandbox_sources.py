"""Where the sandbox gets MySQL from, and the options it gives its servers: what needs no server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from applier.errors import PreflightFailed, UsageError
from applier.sandbox.cache import cache_folder, exclusive
from applier.sandbox.fetch import Package, parse_uris
from applier.sandbox.installation import find
from applier.sandbox.mirrors import debian_mirrors
from applier.sandbox.options import normalised, parse_settings, server_arguments
from applier.sandbox.state import State

OS_RELEASE = 'ID=debian\nVERSION_CODENAME=bookworm\nVERSION_ID="12"\n'


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    """A machine's /etc/apt with no source, and /etc/os-release beside it."""
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    (tmp_path / "os-release").write_text(OS_RELEASE)
    return tmp_path / "apt"


def mirrors(apt: Path) -> list[str]:
    return debian_mirrors(apt, apt.parent / "os-release")


def test_machine_without_sources_has_no_mirror(apt: Path) -> None:
    assert mirrors(apt) == []


def test_mirror_of_one_line_sources(apt: Path) -> None:
    (apt / "sources.list").write_text(
        "# deb http://commented.example/debian bookworm main\n"
        "deb-src http://source.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/usr/share/k.gpg] http://mirror.example/debian bookworm main x # ours\n"
        "deb http://mirror.example/debian bookworm-updates main\n"
        "deb http://security.example/debian-security bookworm-security main\n"
        "deb http://partial.example/debian bookworm contrib\n"
    )
    (apt / "sources.list.d" / "vendor.list").write_text("deb https://vendor.example/apt nodistro main\n")
    assert mirrors(apt) == ["http://mirror.example/debian"]


def test_mirrors_of_deb822_sources(apt: Path) -> None:
    (apt / "sources.list.d" / "debian.sources").write_text(
        "Types: deb deb-src\n"
        "# a comment in between\n"
        "URIs: http://one.example/debian\n"
        "  http://two.example/debian\n"
        "Suites: bookworm bookworm-updates\n"
        "Components: main\n"
        "Signed-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
        " .\n"
        " mQINBGPL0BUBEADmW5NdOOHwPIJlgPu6JDcKw/NZJPR8lsD3K87ZM18gzyQZJD+w\n"
        "\n"
        "Types: deb\nURIs: http://security.example/debian\nSuites: bookworm-security\nComponents: main\n"
        " \n"
        "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n"
        "\n"
        "types: deb\nuris: mirror+file:/etc/apt/mirrors/debian.list\nsuites: sid\ncomponents: main non-free\n"
    )
    assert mirrors(apt) == [
        "http://one.example/debian",
        "http://two.example/debian",
        "mirror+file:/etc/apt/mirrors/debian.list",
    ]


def test_packages_are_read_from_apts_answer_without_perl() -> None:
    answer = (
        "Reading package lists...\n"
        "NOTE: This is only a simulation!\n"
        "'http://m.example/z/zlib1g_1%3a1.3_amd64.deb' zlib1g_1%3a1.3_amd64.deb 92424 MD5Sum:cc06\n"
        "'http://m.example/p/perl-base_5.42_amd64.deb' perl-base_5.42_amd64.deb 1877832 MD5Sum:27d1\n"
        "'http://m.example/p/libperl5.42_5.42_amd64.deb' libperl5.42_5.42_amd64.deb 4272212 MD5Sum:ab2a\n"
        "'http://m.example/p/libpsl5t64_0.23_amd64.deb' libpsl5t64_0.23_amd64.deb 61660\n"
    )
    assert parse_uris(answer) == [
        Package("zlib1g", "zlib1g_1%3a1.3_amd64.deb", 92424),
        Package("libpsl5t64", "libpsl5t64_0.23_amd64.deb", 61660),
    ]


def test_machine_without_apt_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("APPLIER_MYSQLD", raising=False)
    from applier.sandbox import installation

    monkeypatch.setattr(installation, "SERVER_FOLDERS", ())
    with pytest.raises(PreflightFailed, match=r"no apt-get.*Install MySQL's mysqld.*--mysqld"):
        find()


def test_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "applier"


HOLDER = """
import sys
from pathlib import Path
from applier.sandbox.cache import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
    Path(sys.argv[2]).write_text("first")
"""


def test_second_holder_of_the_lock_waits_for_the_first(tmp_path: Path) -> None:
    lock, trace = tmp_path / "lock", tmp_path / "trace"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock), str(trace)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        first.stdin.close()
        with exclusive(lock):
            assert trace.read_text() == "first"


def test_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock), str(tmp_path / "trace")],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        first.kill()
        with exclusive(lock):
            assert not (tmp_path / "trace").exists()


def test_options_of_the_caller_win(tmp_path: Path) -> None:
    arguments = server_arguments(
        datadir=tmp_path / "data",
        socket="/s",
        port=3306,
        server_id=9,
        error_log=tmp_path / "e",
        options=normalised({"Sync-Binlog": "0", "loose-unknown": "x y"}),
    )
    assert "--sync_binlog=0" in arguments
    assert "--sync_binlog=1" not in arguments
    assert "--loose_unknown=x y" in arguments
    assert "--server_id=9" in arguments


@pytest.mark.parametrize("name", ["", "-x", "a b", "a=b", "a\nb"])
def test_what_cannot_be_an_option_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a server option"):
        normalised({name: "1"})


def test_settings_of_the_command_line_are_sorted_by_server() -> None:
    assert parse_settings(("source.a=1", "all.b=x=y", "source.c=")) == {
        "source": {"a": "1", "c": ""},
        "all": {"b": "x=y"},
    }
    for wrong in ("a=1", "source.a", ".a=1", "source.=1"):
        with pytest.raises(UsageError, match=r"server\.option=value"):
            parse_settings((wrong,))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 0}', '{"format": 1, "process": null}'])
def test_file_that_is_not_a_state_is_a_clear_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    path.write_text(text)
    with pytest.raises(PreflightFailed, match="is not a sandbox's state"):
        State.load(path)
