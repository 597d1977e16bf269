"""How the embedded base model is made: `python -m rankwise.pretraining`."""
