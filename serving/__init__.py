"""Servers and a client for the exported captioner."""
