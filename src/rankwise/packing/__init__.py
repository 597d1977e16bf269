"""Which runs share a base model at the same time, and what that needs."""
