"""Triplet Face ID: a lock for one owner."""
