"""What is measured about a base model before training: gradients, activations and weights of each site.

One pass over a few batches serves every signal that is asked for together (`measure`). Its parts stand alone too:
`mean_gradients` and `activation_spectra` give the matrices and directions that data-driven initialisations start from.
"""
