"""What a build with address sanitizer adds to a target: memory without a spare byte behind the data.

Buffers hold many events, and bytes objects end with a zero: a parser that reads a little too far would find memory
that is there. The engine replaces these functions by ones that cut or poison what must not be read.
"""

from __future__ import annotations

from applier.events.batch import Batch


class Guard:
    """Does nothing: without a sanitizer there is nobody to notice."""

    def isolate(self, batch: Batch) -> None:
        """Moves every event of the batch into memory of its own."""

    def close(self, view: memoryview) -> None:
        """Nobody may read `view` until `open`."""

    def open(self, view: memoryview) -> None:
        """Ends what `close` began."""

    def exact(self, data: bytes) -> memoryview | bytes:
        """The same bytes, with the end of the memory behind them."""
        return data


active = Guard()
