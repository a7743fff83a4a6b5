"""Losses: plain functions of embeddings and identities."""
