"""Docs: what of the documentation is made from the code: the reference, tables in pages, and pasted outputs."""
