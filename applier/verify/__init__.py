"""Compare two servers: the same rows at the same position, or which rows differ."""

from applier.verify.definitions import Selection
from applier.verify.options import Progress, VerifyOptions
from applier.verify.position import AppliedPosition, TargetPosition
from applier.verify.report import Difference, Kind, TableReport, VerifyReport
from applier.verify.runner import verify

__all__ = [
    "AppliedPosition",
    "Difference",
    "Kind",
    "Progress",
    "Selection",
    "TableReport",
    "TargetPosition",
    "VerifyOptions",
    "VerifyReport",
    "verify",
]
