"""Training: a library and a program (`python -m training RUN_DIR`). It knows files, not databases."""
