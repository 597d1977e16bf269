"""Which adapter configuration for a model, data and a machine: raced, confirmed on fresh seeds, explained."""
