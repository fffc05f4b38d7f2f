"""Typed settings, validated once at start-up."""
