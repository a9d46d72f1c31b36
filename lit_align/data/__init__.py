"""From raw rows to steps of packed trees, with the fate of every row on record."""
