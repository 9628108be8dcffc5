"""What was found for the claims of the paper, over all experiments: parts of documents, written from the reports."""
