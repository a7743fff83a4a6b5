"""Photographs of hands on disk: every data set becomes one table, tables become splits, files become pixels."""
