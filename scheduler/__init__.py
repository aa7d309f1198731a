"""When a transaction may run: dependencies, commit groups, the clock and the dispatch queue."""
