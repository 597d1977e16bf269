"""The command line: one file per group of commands. Each imports what computes only when it runs."""
