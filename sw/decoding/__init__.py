"""Texts from sessions: choosing tokens, drafting them, and checking several drafts in a pass."""
