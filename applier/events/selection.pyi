from collections.abc import Callable

from applier.events.batch import Batch

def leave_out(
    batch: Batch,
    tables: dict[bytes, bool],
    wanted: Callable[[str, str], bool],
    statement_wanted: Callable[[bytes], bool | None],
) -> None: ...
