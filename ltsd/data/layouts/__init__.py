"""Layouts of sources: folders, tables, lists and annotations, opened by split and not decoded yet."""
