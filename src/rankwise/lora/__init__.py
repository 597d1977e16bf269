"""The packed engine's layers, and adapters as files."""
