"""How flows travel: folders with a model card, and the Hugging Face Hub. No number depends on this code."""
