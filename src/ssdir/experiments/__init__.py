"""Runs that end in tables, pictures and reports."""
