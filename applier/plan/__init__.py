"""How parallel a log is: what could be replayed at the same time, and what stands in the way."""
