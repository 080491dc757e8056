"""Subcommands of `thermosim`, one module each."""
