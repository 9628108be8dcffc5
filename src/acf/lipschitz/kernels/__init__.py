"""How the products that layers are made of are computed fast."""
