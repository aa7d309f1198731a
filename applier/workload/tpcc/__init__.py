"""TPC-C: nine tables, five transactions in their standard mix (TPC-C standard specification 5.11).

What differs from a publishable run: no keying and think times, no terminal screens, the time of entry is a
logical clock (so that the same seed gives the same rows), and `scale` may shrink the tables.
"""

from applier.workload.tpcc.scenario import Tpcc
from applier.workload.tpcc.settings import TpccSettings

__all__ = ["Tpcc", "TpccSettings"]
