"""A LaTeX paper from recorded reports: prose in Markdown, every number a named value, tables and figures generated.

The same document is written as LaTeX and as Markdown. Nothing here trains, compares or imports torch.
"""
