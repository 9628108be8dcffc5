"""Tables, figures and pages made from result files, without a single number of their own."""
