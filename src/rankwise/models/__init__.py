"""Load a frozen base model, find the layers of it that can be adapted, and say which model it is."""
