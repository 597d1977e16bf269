"""The packed training loop."""
