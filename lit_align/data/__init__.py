"""From raw rows to steps of packed trees, with a ledger of what happened to every row."""
