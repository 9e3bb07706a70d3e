"""Decisions: which lever pays, by how much, and what would change the answer."""
