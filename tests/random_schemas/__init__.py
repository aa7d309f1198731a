"""Random schemas, random transactions and DDL on them, replayed in every way, compared with the source.

`schema` knows what tables there are, `values`, `tables`, `ddl` and `transactions` make up SQL text, `sessions` runs it
in several connections at once but always in the same order for one seed, `history` puts all of it together, `replays`
are the ways to replay it and what must hold afterwards.
"""
