"""From planned runs to a finished ledger."""
