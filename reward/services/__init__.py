"""Calls to other services: limits, attempts, clients."""
