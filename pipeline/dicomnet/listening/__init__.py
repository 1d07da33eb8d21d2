"""Receive studies, score them, and send the results; every state is a place on disk."""
