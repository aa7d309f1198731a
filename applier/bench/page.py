"""A result as one HTML file that needs nothing else: tables, plots as inline SVG, and the JSON itself."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from applier.bench.output import on_machine

COLUMNS = 130

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #24292f; }}
pre {{ overflow-x: auto; line-height: 1.25; }}
svg {{ max-width: 100%; height: auto; display: block; margin: 1.5rem 0; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{machine}</p>
{plots}
{tables}
<details><summary>All figures, as JSON</summary><pre id="facts">{facts}</pre></details>
</body>
</html>
"""


def page(title: str, facts: Mapping[str, Any], tables: Iterable[Table], svgs: Iterable[str]) -> str:
    """The whole file."""
    return PAGE.format(
        title=html.escape(title),
        machine=html.escape(on_machine(facts)),
        plots="\n".join(svgs),
        tables="\n".join(map(_as_html, tables)),
        facts=html.escape(json.dumps(facts, indent=1)),
    )


def _as_html(table: Table) -> str:
    recorder = Console(record=True, width=COLUMNS, file=io.StringIO())
    recorder.print(table)
    return str(recorder.export_html(inline_styles=True, code_format="<pre>{code}</pre>"))
