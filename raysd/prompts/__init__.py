"""Prompts: class tables and prompt variants."""
