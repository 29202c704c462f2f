"""The web face of Preflab, and its database. Nothing here imports torch."""
