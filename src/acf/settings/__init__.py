"""The settings: their schema, their reading from params.yaml, JSON schema for editors."""
