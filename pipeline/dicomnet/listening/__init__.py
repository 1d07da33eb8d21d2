"""Receiving studies, scoring them, and sending what comes of it; every state is a place on disk."""
