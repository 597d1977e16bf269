"""Reports: what a study found, in numbers, words and figures. Reads the ledger's plain values alone; needs no torch."""
