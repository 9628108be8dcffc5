"""The stages of the study and commands to look around: the only place that knows the folders of a project."""
