"""Binary log files from disk: what is read, and what is refused before a byte is handed out."""

from __future__ import annotations

from pathlib import Path

import pytest

from applier.errors import ApplierError, EncryptedLog, SourceError, UsageError
from applier.source.files import MAGIC, LogFiles, files_of_index


def test_encrypted_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binlog.000007"
    path.write_bytes(b"\xfdbin" + bytes(512))
    with pytest.raises(EncryptedLog, match=r"binlog\.000007 is encrypted"):
        LogFiles([path])


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", SourceError), (b"PK\3\4", SourceError), (None, UsageError)]
)
def test_what_is_not_a_log_is_refused_before_a_byte_is_read(
    tmp_path: Path, content: bytes | None, kind: type[ApplierError]
) -> None:
    good, bad = tmp_path / "binlog.000001", tmp_path / "binlog.000002"
    good.write_bytes(MAGIC)
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(kind, match=r"binlog\.000002"):
        LogFiles([good, bad])


def test_index_of_a_copied_log_names_the_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "binlog.index").write_text("/var/lib/elsewhere/binlog.000001\n./binlog.000002\n\n")
    assert files_of_index(tmp_path / "binlog.index") == [
        tmp_path / "binlog.000001",
        tmp_path / "binlog.000002",
    ]
    (tmp_path / "empty.index").write_text("\n")
    with pytest.raises(UsageError, match="names no files"):
        files_of_index(tmp_path / "empty.index")
