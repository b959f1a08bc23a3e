"""Hostile and broken files: what is read refuses them in one sentence, or accepts them; nothing else happens."""
