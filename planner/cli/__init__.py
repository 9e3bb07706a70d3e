"""The command line: thin commands over the layers below."""

from __future__ import annotations
