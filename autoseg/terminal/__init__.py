"""What a person at a terminal sees: bars, tables, errors; and what the commands do."""
