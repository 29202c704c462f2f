"""Judges of answers: those who score one by one (reward models, the checker), and those who compare (an LLM)."""
