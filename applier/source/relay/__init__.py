"""The relay log: what the source has sent, on our disk, so that the source's log may be purged while the target lags.

Binary log files and an index, as a stock replica writes them: `mysqlbinlog` and `applier plan` read them. One thread
receives and writes, at its own speed; the flow reads behind it, whole transactions only.

What holds:

- A transaction may be applied as soon as it is written, before it is flushed. Exactly-once does not rest on the relay
  log but on what the target says it has executed, and what a power cut takes from the relay log is received again.
  The flush is for the source: what is in `flushed` survives a power cut here, so the source may purge it.
- One flush (fdatasync) for everything that arrived together: when the source has nothing more to send now, or after
  FLUSH_BYTES_MAX. Never one for each event.
- A file begins and ends between transactions. The transaction that was open when the link broke, or when the process
  was killed, is cut off, and received again.
- A file goes when the target has committed all of it.
"""
