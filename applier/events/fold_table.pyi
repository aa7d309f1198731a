from typing import Any, Final

REFUSALS_TEXT: Final[dict[int, str]]

class FoldTable:
    table_map: Any
    plan: Any
    def __init__(self, table_map: Any, plan: Any) -> None: ...
