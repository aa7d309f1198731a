class RowText:
    rows: int
    error: bytes | None
    rest: int
    def __init__(
        self,
        prefixes: list[bytes],
        suffixes: list[bytes],
        between: bytes = b"\t",
        null: bytes = b"\\N",
        row_begin: bytes = b"",
        row_end: bytes = b"\n",
    ) -> None: ...
    @property
    def ended(self) -> bool: ...
    @property
    def ready(self) -> int: ...
    def feed(self, data: memoryview | bytes | bytearray, length: int) -> None: ...
    def take(self, packet_number: int) -> bytes: ...
    def take_text(self) -> bytes: ...
