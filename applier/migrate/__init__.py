"""Move live schemas from one MySQL instance to another: schema, snapshot copy, catch-up, cut-over, and a way back."""
