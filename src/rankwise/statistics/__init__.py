"""Intervals, paired comparison, multiplicity, power and verdicts: pure functions of arrays with named axes.

Nothing here knows what a run is. Lower is better everywhere, because what is compared are losses.
"""
