"""What is measured about a base model before training."""
