"""Losses: declared by paths, named, weighted and masked."""
