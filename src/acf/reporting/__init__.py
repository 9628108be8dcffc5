"""Tables, figures and pages; every number in them comes from a results file."""
