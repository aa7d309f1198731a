class KeyTable:
    keys_max: int
    count: int
    distinct: int
    forgotten: int
    @property
    def memory_bytes(self) -> int: ...
