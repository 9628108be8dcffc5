"""What `python -m mkdocs build` calls, beside its plugins (mkdocs.yml)."""
